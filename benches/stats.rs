//! Numbers about numbers. Knows nothing of what they measure.

/// The median; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value that so many of a hundred do not exceed, linearly between neighbours; 0 of nothing.
pub fn percentile(values: &[f64], of_100: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = of_100 / 100.0 * last as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (place - low as f64)
}

/// Calls both in turn, so many times, and begins with the other one each time: what disturbs the machine disturbs both.
pub fn alternate<A, B>(rounds: usize, mut ours: impl FnMut() -> A, mut theirs: impl FnMut() -> B) -> (Vec<A>, Vec<B>) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            a.push(ours());
            b.push(theirs());
        } else {
            b.push(theirs());
            a.push(ours());
        }
    }
    (a, b)
}
