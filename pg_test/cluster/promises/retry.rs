//! A1 to A3: what is sent again, with which key, how often, and what never is.
