//! What the agent does with a delivery. The caller's arguments say so, one word per attempt: the plan of a seed decides
//! how the agent behaves, whatever ids the runs get.

use serde_json::Value;

use super::rng::Rng;

/// One behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Does it and says so.
    Succeed,
    /// The same, after a while.
    Slow,
    /// Does it, after saying 202.
    Accept,
    /// Tries, and says that it did not work. No effect.
    Fail,
    /// Says 422. No effect.
    Refuse,
    /// Says 503 with Retry-After: it took nothing.
    Busy,
    /// Says 429 with Retry-After: it took nothing.
    TooMany,
    /// Says 500. No effect, but nobody can know that.
    Error,
    /// Hangs up without an answer, and has done nothing.
    DropUndone,
    /// Hangs up without an answer, and has done it.
    DropDone,
    /// The same with a reset.
    Reset,
    /// Does it, and hangs up in the middle of the answer.
    Cut,
    /// Does it, and answers something that is no answer.
    Garbage,
    /// Does it, and is silent for longer than anybody waits.
    Hang,
}

const WORDS: [(u64, Deed, &str); 14] = [
    (52, Deed::Succeed, "succeed"),
    (8, Deed::Slow, "slow"),
    (6, Deed::Accept, "accept"),
    (3, Deed::Fail, "fail"),
    (2, Deed::Refuse, "refuse"),
    (6, Deed::Busy, "busy"),
    (3, Deed::TooMany, "too_many"),
    (5, Deed::Error, "error"),
    (4, Deed::DropUndone, "drop_undone"),
    (4, Deed::DropDone, "drop_done"),
    (2, Deed::Reset, "reset"),
    (2, Deed::Cut, "cut"),
    (2, Deed::Garbage, "garbage"),
    (1, Deed::Hang, "hang"),
];

impl Deed {
    /// Whether the work is done, in an apply.
    pub fn takes(self) -> bool {
        use Deed as D;
        match self {
            D::Succeed | D::Slow | D::Accept | D::DropDone | D::Reset | D::Cut | D::Garbage | D::Hang => true,
            D::Fail | D::Refuse | D::Busy | D::TooMany | D::Error | D::DropUndone => false,
        }
    }

    /// Whether it says that it took nothing, so that the delivery may be repeated whatever the tool is.
    pub fn says_untaken(self) -> bool {
        matches!(self, Deed::Busy | Deed::TooMany)
    }

    /// Whether the answer leaves nothing open.
    pub fn is_clear(self) -> bool {
        use Deed as D;
        matches!(self, D::Succeed | D::Slow | D::Fail | D::Refuse) || self.says_untaken()
    }
}

/// The words of a run: one for each of the first attempts; the last one goes for all further.
pub fn script(rng: &mut Rng) -> Vec<&'static str> {
    let words = WORDS.map(|(weight, _, word)| (weight, word));
    (0..rng.between(1, 3)).map(|_| rng.weighted(&words)).collect()
}

/// The word for an attempt.
pub fn read(args: &Value, attempt: i64) -> Deed {
    let Some(script) = args["script"].as_array() else { return Deed::Succeed };
    let index = usize::try_from(attempt - 1).unwrap_or(0).min(script.len().saturating_sub(1));
    let word = script.get(index).and_then(Value::as_str).unwrap_or_default();
    WORDS.iter().find(|(_, _, known)| *known == word).map_or(Deed::Succeed, |(_, deed, _)| *deed)
}
