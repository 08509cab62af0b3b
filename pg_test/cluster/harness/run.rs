//! A row of the ledger, as the tests look at it.

use postgres::GenericClient;
use serde_json::Value;
use uuid::Uuid;

/// One run: its row as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Run(pub Value);

impl Run {
    /// `run_id`.
    #[track_caller]
    pub fn id(&self) -> Uuid {
        self.0["run_id"].as_str().and_then(|id| id.parse().ok()).expect("a run")
    }

    /// `run_status`.
    pub fn status(&self) -> &str {
        self.text("run_status")
    }

    /// `reason`; empty for none.
    pub fn reason(&self) -> &str {
        self.text("reason")
    }

    /// `fencing_token`; 0 for none.
    pub fn token(&self) -> i64 {
        self.0["fencing_token"].as_i64().unwrap_or_default()
    }

    /// A column of text; empty for NULL.
    pub fn text(&self, column: &str) -> &str {
        self.0[column].as_str().unwrap_or_default()
    }

    /// The first gates' decision of that name.
    pub fn gate(&self, name: &str) -> Option<&Value> {
        self.0["gates"].as_array()?.iter().find(|decision| decision["gate"] == name)
    }
}

/// The arguments of `fn_dot_run`.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Tool.
    pub code: &'a str,
    /// Mode.
    pub mode: &'a str,
    /// Process run.
    pub process: Option<Uuid>,
    /// Arguments.
    pub args: Value,
    /// Idempotency key.
    pub key: Option<&'a str>,
}

impl<'a> Ask<'a> {
    /// With everything else left at its default.
    pub fn new(code: &'a str, mode: &'a str) -> Ask<'a> {
        Ask { code, mode, process: None, args: serde_json::json!({}), key: None }
    }

    /// Calls `fn_dot_run` in any session or transaction.
    pub fn on(&self, session: &mut impl GenericClient) -> Result<Run, postgres::Error> {
        let sql = "SELECT to_jsonb(r) FROM public.fn_dot_run($1, $2, $3, $4, $5) r";
        session
            .query_one(sql, &[&self.code, &self.mode, &self.process, &self.args, &self.key])
            .map(|row| Run(row.get(0)))
    }
}
