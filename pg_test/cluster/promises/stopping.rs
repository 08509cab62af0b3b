//! O1, O6, R2: ends of the worker and of the server, and a long life.

mod long_life;
mod postmaster;
mod shutdown;
