//! Launcher and workers from start to end, and what they live with: extensions and databases that come and go, signals,
//! settings, shutdowns, and substrates that somebody else owns.

mod accepted;
mod adopted;
mod bind;
mod counters;
mod database;
mod extension;
mod idle;
mod late;
mod settings;
mod shutdown;
mod signals;
mod troubles;
