//! Row triggers (docs/triggers.md).
