//! O1, O6: stops, terminations, and the death of the postmaster.
