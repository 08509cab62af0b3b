//! L1 to L4: one holder, growing tokens, clocks that step, holders that die.
