//! D5, G1 to G6: every refusal, with its row and its reason.
//!
//!     refusals  D5: what refuses, at both gates, and where it can be read afterwards
//!     answers   G1, G2: toggles and guards that say anything but a clear yes
//!     late      G3: what changes while a run waits          plan     G4: modes that must not touch anything
//!     forged    G5: rows that nobody requested              hostile  G6: what the substrate's code may try
//!     fresh     what is kept from call to call is what a read would find
//!     named     what the second gates repeat is kept as a name
//!     told      what was changed in the very transaction that requested a run

mod answers;
mod forged;
mod fresh;
mod hostile;
mod late;
mod named;
mod plan;
mod refusals;
mod told;
