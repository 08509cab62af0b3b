//! N1 to N5 through the whole: what leaves the server, and where it goes.
