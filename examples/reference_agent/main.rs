//! A reference agent: the other side of dot_wrapper's HTTP contract, small enough to copy from. `docs/agent_api.md`
//! explains it. It executes nothing; what it pretends to do is told by the arguments of a run (`behaviour`).
//!
//! `runs` is the contract's two routes, `contract` checks a request, `book` is what an agent must remember, `time` reads
//! deadlines, `journal` writes down what came in, `control` is for tests.

mod behaviour;
mod book;
mod contract;
mod control;
mod journal;
mod runs;
mod time;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio::net::TcpListener;

use book::Book;
use journal::Journal;

/// What all requests share.
pub struct Agent {
    /// The token that callers must show, when one was set.
    pub token: Option<String>,
    /// Runs, tokens, releases.
    pub book: Book,
    /// What came in.
    pub journal: Journal,
}

/// The command line.
struct Options {
    listen: String,
    token: Option<String>,
    record: Option<PathBuf>,
}

const USAGE: &str = "usage: reference_agent [--listen 127.0.0.1:8077] [--token VALUE] [--record FILE]
  --listen  address and port; port 0 takes a free one, which is printed
  --token   require `Authorization: Bearer VALUE`; DOT_AGENT_TOKEN does the same and does not show in `ps`
  --record  append one line of JSON per request";

#[tokio::main]
async fn main() -> ExitCode {
    let result = match options(std::env::args().skip(1)) {
        Ok(options) => serve(options).await,
        Err(message) => Err(format!("{message}\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let token = std::env::var("DOT_AGENT_TOKEN").ok().filter(|token| !token.is_empty());
    let mut options = Options { listen: "127.0.0.1:8077".into(), token, record: None };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        match word.as_str() {
            "--listen" => options.listen = value()?,
            "--token" => options.token = Some(value()?),
            "--record" => options.record = Some(value()?.into()),
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(options)
}

async fn serve(options: Options) -> Result<(), String> {
    let journal = Journal::open(options.record.as_deref()).map_err(|e| format!("the record cannot be opened: {e}"))?;
    let agent = Arc::new(Agent { token: options.token, book: Book::default(), journal });
    let listener = TcpListener::bind(&options.listen).await.map_err(|e| format!("{}: {e}", options.listen))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    // One line, so that a test that asked for port 0 can read where to go. Nobody may be reading.
    let _ = writeln!(std::io::stdout(), "listening on http://{address}");
    axum::serve(listener, router(agent)).await.map_err(|e| e.to_string())
}

fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/dots/{code}/runs", post(runs::start))
        .route("/v1/runs/{run_id}", get(runs::status))
        .route("/control/requests", get(control::requests))
        .route("/control/counts", get(control::counts))
        .route("/control/reset", post(control::reset))
        .route("/control/release", post(control::release))
        .route("/healthz", get(|| async { "ok" }))
        .fallback(runs::unknown)
        .with_state(agent)
}
