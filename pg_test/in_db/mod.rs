//! Tests inside the server, each in a transaction that is rolled back.
