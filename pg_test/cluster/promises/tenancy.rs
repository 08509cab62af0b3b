//! T1 to T5: roles, planted objects, other people's runs, secrets.
