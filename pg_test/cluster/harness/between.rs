//! What happens between the two gates: requests whose surroundings or rows change before they are committed, and so
//! before any worker sees them; and rows that no request made.

use uuid::Uuid;

use super::Bench;
use super::run::{Ask, Run};

impl Bench {
    /// Requests a run and runs `change` in the same transaction; RUN in it stands for the run's id.
    #[track_caller]
    pub fn between(&self, ask: &Ask<'_>, change: &str) -> Run {
        self.between_as("postgres", ask, change)
    }

    /// As [`Bench::between`], requested by an ordinary role. The change is still a superuser's; REQUESTER stands for it.
    #[track_caller]
    pub fn between_as(&self, role: &str, ask: &Ask<'_>, change: &str) -> Run {
        self.between_under(role, ask, change, false)
    }

    /// As [`Bench::between_as`], where the request is what a savepoint was set before, or a block with an exception clause.
    #[track_caller]
    pub fn between_nested(&self, role: &str, ask: &Ask<'_>, change: &str) -> Run {
        self.between_under(role, ask, change, true)
    }

    #[track_caller]
    fn between_under(&self, role: &str, ask: &Ask<'_>, change: &str, savepoint: bool) -> Run {
        let mut session = self.connect();
        let mut transaction = session.transaction().unwrap();
        let around = if savepoint { ["SAVEPOINT request", "RELEASE SAVEPOINT request"] } else { ["", ""] };
        transaction.batch_execute(&format!("{}; SET LOCAL ROLE {role}", around[0])).unwrap();
        let run = ask.on(&mut transaction).unwrap();
        transaction.batch_execute(around[1]).unwrap();
        assert_eq!(run.status(), "queued", "{run:?}");
        let change = change.replace("RUN", &format!("'{}'", run.id())).replace("REQUESTER", role);
        let sql = format!("SET LOCAL ROLE postgres; {change}");
        transaction.batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?} in {sql}"));
        transaction.commit().unwrap();
        run
    }

    /// Copies a run under another id, as if it had just been admitted, with a permit of the forger's choice. As the role
    /// that the session is.
    pub fn forge(session: &mut postgres::Client, model: &Run, permit: &str) -> Result<Uuid, postgres::Error> {
        let id = Uuid::now_v7();
        session.batch_execute(&format!(
            "INSERT INTO dot_wrapper.dot_run SELECT (jsonb_populate_record(r, jsonb_build_object(
                 'run_id', '{id}', 'run_status', 'queued', 'attempts', 0, 'idempotency_key', '{id}', 'started_at', NULL,
                 'finished_at', NULL, 'result', NULL, 'observations', NULL, 'requested_at', now(), 'start_by', now() + '1 h'))).*
             FROM dot_wrapper.dot_run r WHERE run_id = '{}';
             INSERT INTO dot_wrapper.dot_queue (run_id, state, lane, code, endpoint, permit)
             VALUES ('{id}', 'queued', 1, 'DOT-1', 'agent', {permit})",
            model.id()
        ))?;
        Ok(id)
    }

    /// Makes a role that may call `fn_dot_run`, and nothing else.
    #[track_caller]
    pub fn caller(&self, name: &str) -> String {
        let role = self.role(name);
        self.exec(&format!("GRANT EXECUTE ON FUNCTION fn_dot_run(text, text, uuid, jsonb, text) TO {role}"));
        role
    }
}
