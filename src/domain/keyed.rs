//! The keyed digest behind permits, marks and the head of the chain: HMAC-SHA256 under the key of this database.
//! Does not live here: what is digested. Each user begins its text in a way of its own, so that none passes for another's.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Of these parts, one after the other.
pub fn digest(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    over(key, parts).finalize().into_bytes().into()
}

/// True when `found` is the digest of these parts. Takes the same time whatever differs. An empty key has none.
pub fn is_digest(key: &[u8], parts: &[&[u8]], found: &[u8]) -> bool {
    !key.is_empty() && over(key, parts).verify_slice(found).is_ok()
}

fn over(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    // HMAC takes keys of any length; the error type exists for other algorithms.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes any key length"));
    for part in parts {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_hmac_sha256_and_an_empty_key_proves_nothing() {
        // RFC 4231, test case 2.
        let found = digest(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        let known = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(super::super::canonical::hex(&found), known);
        assert!(is_digest(b"Jefe", &[b"what do ya want for nothing?"], &found));
        assert!(!is_digest(b"Jefe", &[b"what do ya want for nothing"], &found));
        assert!(!is_digest(b"Jefe", &[b"what do ya want for nothing?"], &found[..31]));
        assert!(!is_digest(b"", &[b"x"], &digest(b"", &[b"x"])));
    }
}
