//! What was marked and sealed by the first version holds for good: ledgers have it. The texts and their marks, digests and
//! hashes were made by the code of then.

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::chain::{Head, Seal, key_id};
use super::{EventFacts, is_marked, row};
use crate::domain::canonical::hex;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
const RUN: &str = "0190a5e1-7c11-7abc-8def-0123456789ab";

/// The text of a row as PostgreSQL writes it, its digest, and its detail as it was sent.
const ROWS: [(&str, &str, &str); 3] = [
    (
        r#"["event 1", 40, "0190a5e1-7c11-7abc-8def-0123456789ab", "queued", null, null, "queued", "2026-11-23T07:30:00.12345", {}, "0101010101010101c91f158d3e4b228b6186b08a0c8e105a"]"#,
        "67406aa82eb1ab9706decd7e6c1ff3cb24592721512700c43c80e197f6763961",
        "{}",
    ),
    (
        r#"["event 1", 41, "0190a5e1-7c11-7abc-8def-0123456789ab", "running", 1, "queued", "running", "2026-11-23T07:30:01.12345", {"b": ["\u0001\n\"é🔧", {"gate": "lease", "ok": true}], "zz": 1.50, "big": 12345678901234567890.10, "é\"": [0, -0.5, 100, null]}, "0202020202020202e316c7fbeccf1aba5ccc5a605b035d62"]"#,
        "31c93a7c05a9aa2b520919d60ea63edf871c9e5e3b2b35ab27e5ba1856773127",
        r#"{"zz":15e-1,"é\"":[-0.0,-5E-1,1e2,null],"big":12345678901234567890.1,"b":["\u0001\u000a\u0022\u00e9🔧",{"ok":true,"gate":"lease"}]}"#,
    ),
    (
        r#"["event 1", 42, "0190a5e1-7c11-7abc-8def-0123456789ab", "succeeded", 1, "running", "succeeded", "2026-11-23T07:30:02.12345", {"http": 200, "took_ms": 12.5}, "030303030303030377fb521a82c7fa03bf56df90f526467f"]"#,
        "242aab994eec9adf03aa0fd8dc97143928f14938bbe95baad29b05249dbb4ff5",
        r#"{"took_ms":12.50,"http":2e2}"#,
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

#[test]
fn marks_and_digests_of_the_first_version_still_hold() {
    for (n, (text, digest, sent)) in ROWS.into_iter().enumerate() {
        let read = row::read(text, KEY).unwrap();
        assert_eq!((read.event_id, read.run_id.to_string().as_str()), (40 + n as i64, RUN));
        assert!(read.is_marked, "{text}");
        assert_eq!(hex(&read.digest), digest);
        assert_eq!(hex(&Sha256::digest(text)), digest);
        // By its columns, as fn_dot_verify reads it, and as it was when it was marked.
        let columns: Vec<Value> = serde_json::from_str(text).unwrap();
        let detail: Value = serde_json::from_str(sent).unwrap();
        let mark = bytes(columns[9].as_str().unwrap());
        for detail in [&columns[8], &detail] {
            let facts = EventFacts {
                run_id: Uuid::parse_str(RUN).unwrap(),
                event: columns[3].as_str().unwrap(),
                attempt: columns[4].as_i64().and_then(|attempt| i32::try_from(attempt).ok()),
                from_status: columns[5].as_str(),
                to_status: columns[6].as_str(),
                detail,
            };
            assert!(is_marked(KEY, &facts, Some(&mark)), "{detail}");
        }
    }
}

#[test]
fn seals_and_the_head_of_the_first_version_still_hold() {
    let mut digests = vec![0xab; 32];
    digests.extend(ROWS.iter().flat_map(|(_, digest, _)| bytes(digest)));
    digests.extend([0xcd; 64]);
    let seal = Seal {
        seal_id: 7,
        sealed_at: 1_795_000_000_123_456,
        process_run_id: Uuid::from_u128(5),
        run_id: Uuid::parse_str(RUN).unwrap(),
        event_ids: vec![40, 41, 42],
        attempts: vec![1],
        digests,
        origins: "mmm".into(),
        prev: [9; 32],
    };
    assert_eq!(hex(&seal.hash()), "03595eaa7becc3c24fb5fa4e2a93a4025a6b7ad018fb5b9ec25d5eef5900c3cf");
    let head = Head { seal_id: 7, hash: seal.hash(), low: 41, high: 42, since: 6, foreign_to: 0, key_id: key_id(KEY) };
    assert_eq!(hex(&head.mark(KEY)), "92dbbe95084be6d43f46f43908c5f3b1");
    assert_eq!(hex(&head.key_id), "531376a082216648");
}
