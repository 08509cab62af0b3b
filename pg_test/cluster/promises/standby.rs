//! O4: silence on a standby, and what a promoted one does with inherited intents.
