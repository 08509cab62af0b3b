//! What is kept of a program's output: its end, since that is where programs say what went wrong.

use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt};

use std::sync::{Arc, Mutex, PoisonError};

/// The last bytes of a stream. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Tail(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    most: usize,
    bytes: Vec<u8>,
    all: u64,
}

impl Tail {
    /// Keeps this many bytes.
    pub(super) fn new(most: u64) -> Tail {
        let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
        Tail(Arc::new(Mutex::new(Kept { most, bytes: Vec::new(), all: 0 })))
    }

    /// Reads a stream to its end, whatever comes: a program must not be held up by us.
    pub(super) async fn follow(self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = vec![0_u8; 64 * 1024];
        // An error is an end too.
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            self.push(buffer.get(..length).unwrap_or_default());
        }
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.all += bytes.len() as u64;
        kept.bytes.extend_from_slice(bytes);
        // Twice as much at most, so that what is moved is moved once.
        if kept.bytes.len() > kept.most.saturating_mul(2) {
            kept.cut();
        }
    }

    /// All bytes that came.
    pub(super) fn bytes(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all
    }

    /// Puts it into a result under this name, and the number of all bytes beside it when that is more.
    pub(super) fn put(&self, name: &str, into: &mut Map<String, Value>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.cut();
        let is_cut = kept.all > kept.bytes.len() as u64;
        let whole_from =
            if is_cut { kept.bytes.iter().take(3).take_while(|byte| is_inside(**byte)).count() } else { 0 };
        let text = String::from_utf8_lossy(kept.bytes.get(whole_from..).unwrap_or_default()).replace('\0', "\u{fffd}");
        if !is_cut
            && name == "stdout"
            && let Ok(json) = serde_json::from_str(&text)
        {
            into.insert("json".into(), json);
        }
        into.insert(name.into(), text.into());
        if is_cut {
            into.insert(format!("{name}_bytes"), kept.all.into());
        }
    }
}

impl Kept {
    fn cut(&mut self) {
        let beyond = self.bytes.len().saturating_sub(self.most);
        self.bytes.drain(..beyond);
    }
}

/// A byte that cannot begin a character.
fn is_inside(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn put(most: u64, pieces: &[&[u8]]) -> Map<String, Value> {
        let tail = Tail::new(most);
        pieces.iter().for_each(|piece| tail.push(piece));
        let mut into = Map::new();
        tail.put("stdout", &mut into);
        into
    }

    #[test]
    fn the_end_is_kept_and_the_whole_is_counted() {
        assert_eq!(
            put(4, &[b"ab", b"cdefgh", b"i"]),
            *json!({"stdout": "fghi", "stdout_bytes": 9}).as_object().unwrap()
        );
        assert_eq!(put(4, &["xäöü".as_bytes()])["stdout"], "öü");
        assert_eq!(put(3, &["xäöü".as_bytes()])["stdout"], "ü", "no half of a character");
        assert_eq!(put(9, &[b"a\0\xffb"])["stdout"], "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn one_json_document_is_read_and_half_of_one_is_not() {
        assert_eq!(put(99, &[b"{\"n\": 1}\n"])["json"], json!({"n": 1}));
        assert_eq!(put(99, &[b"{\"n\": 1} {}"]).get("json"), None);
        assert_eq!(put(99, &[b""]).get("json"), None);
        assert_eq!(put(2, &[b"12 34"]).get("json"), None, "cut");
    }

    proptest! {
        #[test]
        fn never_more_than_the_cap_in_memory(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let tail = Tail::new(16);
            for piece in &pieces {
                tail.push(piece);
                prop_assert!(tail.0.lock().unwrap().bytes.len() <= 32);
            }
            let whole: Vec<u8> = pieces.concat();
            prop_assert_eq!(tail.bytes(), whole.len() as u64);
            let mut into = Map::new();
            tail.put("x", &mut into);
            prop_assert!(into["x"].as_str().unwrap().len() <= 16 * 3);
            let from = whole.len().saturating_sub(16);
            let end = String::from_utf8_lossy(&whole[from..]).replace('\0', "\u{fffd}");
            prop_assert!(end.ends_with(into["x"].as_str().unwrap()));
        }
    }
}
