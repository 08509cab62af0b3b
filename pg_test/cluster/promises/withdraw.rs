//! A4, A6: cancelling and resolving, against a worker that is at work.
