//! D4: changes to the ledger by anybody, told by fn_dot_verify.
