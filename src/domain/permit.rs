//! Permits: the proof that a queue row came through `fn_dot_run` in this database (invariant 11: a row is not a permit).
//!
//! A permit is an HMAC-SHA256 over what will be executed and for whom, under a key that `CREATE EXTENSION` makes and
//! that no dump contains. A row that was inserted, restored, copied to another database or altered does not verify.

use serde_json::{Value, json};
use uuid::Uuid;

use super::mode::Mode;
use super::via::Source;
use super::{canonical, keyed};

/// What a permit covers.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims<'a> {
    /// The run.
    pub run_id: Uuid,
    /// Its process run.
    pub process_run_id: Uuid,
    /// The tool.
    pub code: &'a str,
    /// The mode.
    pub mode: Mode,
    /// The arguments.
    pub args: &'a Value,
    /// The requesting role's OID.
    pub requested_by: u32,
    /// The lease key, if any.
    pub lease_key: Option<&'a str>,
    /// The way by which it was requested: it says what the role must be allowed to do.
    pub source: Source,
    /// What waits in the queue of what the first gates said (see `domain::decided`), if anything does.
    pub decided: Option<&'a [u8]>,
}

/// The permit for these claims.
pub fn issue(key: &[u8], claims: &Claims<'_>) -> Vec<u8> {
    keyed::digest(key, &[text(claims).as_bytes()]).to_vec()
}

/// True when the permit was issued for exactly these claims under this key. Takes the same time whatever differs.
pub fn verify(key: &[u8], claims: &Claims<'_>, permit: &[u8]) -> bool {
    keyed::is_digest(key, &[text(claims).as_bytes()], permit)
}

fn text(claims: &Claims<'_>) -> String {
    let mut text = json!({
        "v": 1,
        "run_id": claims.run_id,
        "process_run_id": claims.process_run_id,
        "code": claims.code,
        "mode": claims.mode,
        "args": claims.args,
        "requested_by": claims.requested_by,
        "lease_key": claims.lease_key,
        "source": claims.source,
    });
    if let Some(decided) = claims.decided {
        text["decided"] = canonical::hex(decided).into();
    }
    canonical::text(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariant_11_a_row_is_not_a_permit_any_change_breaks_it() {
        let args = json!({"a": 1});
        let other = json!({"a": 2});
        let claims = Claims {
            run_id: Uuid::from_u128(1),
            process_run_id: Uuid::from_u128(2),
            code: "DOT-1",
            mode: Mode::Verify,
            args: &args,
            requested_by: 10,
            lease_key: None,
            source: Source::Call,
            decided: Some(b"said"),
        };
        let permit = issue(b"key", &claims);
        assert!(verify(b"key", &claims, &permit));
        assert!(!verify(b"kez", &claims, &permit));
        assert!(!verify(b"", &claims, &issue(b"", &claims)));
        for changed in [
            Claims { run_id: Uuid::from_u128(3), ..claims.clone() },
            Claims { process_run_id: Uuid::from_u128(3), ..claims.clone() },
            Claims { code: "DOT-2", ..claims.clone() },
            Claims { mode: Mode::Apply, ..claims.clone() },
            Claims { args: &other, ..claims.clone() },
            Claims { requested_by: 11, ..claims.clone() },
            Claims { lease_key: Some(""), ..claims.clone() },
            Claims { source: Source::Request, ..claims.clone() },
            Claims { decided: Some(b"sais"), ..claims.clone() },
            Claims { decided: Some(b""), ..claims.clone() },
            Claims { decided: None, ..claims.clone() },
        ] {
            assert!(!verify(b"key", &changed, &permit), "{changed:?}");
        }
    }
}
