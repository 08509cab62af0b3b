//! A7: a run that brings the worker down is set aside, and the others go on.
