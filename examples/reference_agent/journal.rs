//! Writes down every request with what was decided about it, before it is answered: in memory for `/control/requests`,
//! and in a file when one was named. Credentials are left out.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, Method, Uri, header};
use serde_json::{Map, Value, json};

/// What came in.
pub struct Journal(Mutex<Pages>);

struct Pages {
    records: Vec<Value>,
    file: Option<File>,
}

impl Journal {
    /// Appends to the file, when there is one.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Journal(Mutex::new(Pages { records: Vec::new(), file })))
    }

    /// Writes one record.
    pub fn write(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: Value, decision: Value) {
        let record = json!({
            "method": method.as_str(),
            "path": uri.path_and_query().map_or("", |path| path.as_str()),
            "headers": shown(headers),
            "body": body,
            "decision": decision,
        });
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &mut pages.file {
            // One write per line, so that a reader never sees half of one. A record that cannot be written is a reason
            // to say so, not to leave the caller without an answer.
            if let Err(error) = file.write_all(format!("{record}\n").as_bytes()) {
                eprintln!("the record cannot be written: {error}");
            }
        }
        pages.records.push(record);
    }

    /// All records so far.
    pub fn records(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).records.clone()
    }

    /// Forgets the records; the file stays as it is.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).records.clear();
    }
}

fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let secret = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];
    headers
        .iter()
        .filter(|(name, _)| !secret.contains(name))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect()
}
