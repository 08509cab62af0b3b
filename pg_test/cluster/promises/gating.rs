//! D5, G1 to G6: every refusal, with its row and its reason.
