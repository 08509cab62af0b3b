//! The bytes of an agent: requests as they came, replies as they are to go.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use uuid::Uuid;

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number, from 0.
    pub number: usize,
    /// POST or GET.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body; null when it is not JSON.
    pub body: Value,
}

impl Request {
    /// A header's value; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// A field of the body; empty when it is no text.
    pub fn field(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }

    /// The run that it is about: of the body, or at the end of a status path.
    pub fn run_id(&self) -> Option<Uuid> {
        self.field("run_id").parse().ok().or_else(|| self.path.rsplit('/').next()?.parse().ok())
    }

    /// Reads one from a connection.
    pub fn read(stream: &mut TcpStream) -> io::Result<Request> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, n)| n.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Request { number: 0, method, path, headers, body })
    }
}

/// What an agent does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status and a JSON body.
    Json(u16, Value),
    /// 202 with a `Location` to ask at.
    Accepted,
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, and then silence until the caller hangs up.
    Stall(Vec<u8>),
    /// This head, and then zeros for as long as the caller takes them.
    Flood(&'static str),
    /// The end of the connection.
    Close,
    /// Nothing, until the test says what.
    Hold,
}

impl Reply {
    /// 200 with a status of the contract and a result.
    pub fn ended(status: &str) -> Reply {
        Reply::Json(200, json!({"status": status, "result": {"said": status}, "message": format!("it {status}")}))
    }

    /// A success.
    pub fn succeeded() -> Reply {
        Reply::ended("succeeded")
    }

    /// Sends it; `Hold` is the agent's business. Errors say only that the caller has gone.
    pub fn write(&self, request: &Request, stream: &mut TcpStream) -> io::Result<()> {
        match self {
            Reply::Json(status, body) => stream.write_all(&json_answer(*status, "", body)),
            Reply::Accepted => {
                let id = request.run_id().unwrap_or_default();
                let head = format!("Location: /v1/runs/{id}\r\nRetry-After: 0\r\n");
                stream.write_all(&json_answer(202, &head, &json!({"status": "running"})))
            }
            Reply::Bytes(bytes) => stream.write_all(bytes),
            Reply::Stall(bytes) => {
                stream.write_all(bytes)?;
                io::copy(stream, &mut io::sink()).map(drop)
            }
            Reply::Flood(head) => {
                stream.write_all(head.as_bytes())?;
                loop {
                    stream.write_all(&[b'0'; 1 << 16])?;
                }
            }
            Reply::Close | Reply::Hold => Ok(()),
        }
    }
}

/// An answer with a JSON body, as bytes.
pub fn json_answer(status: u16, head: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{head}\r\n{body}")
        .into_bytes()
}
