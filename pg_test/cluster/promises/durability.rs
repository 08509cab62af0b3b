//! D1 to D3, D6, A5, N6: what is on disk before what leaves, and what comes back.
