//! R1, R2: rates, concurrency, breakers, fairness, queue depth.
