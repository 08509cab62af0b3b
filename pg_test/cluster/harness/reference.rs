//! The reference agent of this repository, as a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::os;

/// Runs the agent for as long as its input is open, so that it never outlives the tests.
const KEEPER: &str = r#""$1" --listen 127.0.0.1:0 & read -r _; kill $!; wait"#;

/// A running reference agent.
pub struct Reference {
    keeper: Child,
    address: String,
}

impl Reference {
    /// Starts it on a free port.
    pub fn start() -> Reference {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh", &os::variable("DOT_TEST_AGENT")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().expect("a pipe")).read_line(&mut line).expect("its first line");
        let address = line.trim().strip_prefix("listening on http://").expect("its address").to_owned();
        Reference { keeper, address }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.rsplit(':').next().unwrap().parse().expect("a port")
    }

    /// The records of all requests so far.
    pub fn requests(&self) -> Vec<Value> {
        let body = self.call("GET", "/control/requests");
        serde_json::from_str(&body).expect("a list of records")
    }

    fn call(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("the agent listens");
        let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).expect("a body")
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
