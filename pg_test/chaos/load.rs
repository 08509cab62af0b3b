//! The callers: several sessions that ask for runs in every way there is, and write down what they were told.

use std::time::{Duration, SystemTime};

use postgres::{Client, GenericClient};
use serde_json::{Value, json};
use uuid::Uuid;

use super::deeds;
use super::rng::Rng;
use super::server::DATABASE;
use super::tools::{self, CALLERS, TOOLS};
use super::world::{Asked, Prepared, Told, World};

/// What a caller does next.
#[derive(Clone, Copy, Debug)]
enum Act {
    Single,
    Several,
    Savepoint,
    Rollback,
    Promise,
    Prepare,
    Finish,
    Repeat,
    Cancel,
}

const ACTS: [(u64, Act); 9] = [
    (46, Act::Single),
    (10, Act::Several),
    (8, Act::Savepoint),
    (7, Act::Rollback),
    (10, Act::Promise),
    (5, Act::Prepare),
    (5, Act::Finish),
    (5, Act::Repeat),
    (4, Act::Cancel),
];

/// A call of fn_dot_run.
struct Call {
    code: &'static str,
    mode: &'static str,
    process: Uuid,
    args: Value,
    key: String,
}

impl Call {
    fn new(rng: &mut Rng, key: String) -> Call {
        let tool = rng.pick(&TOOLS.each_ref());
        let mode = rng.weighted(&[(80, "apply"), (17, "verify"), (3, "plan")]);
        let args = json!({"k": rng.between(1, 60), "script": deeds::script(rng), "note": rng.next().to_string()});
        Call { code: tool.code, mode, process: tools::uuid(rng.next(), rng.next()), args, key }
    }

    fn on(&self, session: &mut impl GenericClient) -> Result<(Uuid, String), postgres::Error> {
        let sql = "SELECT r.run_id, r.run_status FROM public.fn_dot_run($1, $2, $3, $4, $5) r";
        let row = session.query_one(sql, &[&self.code, &self.mode, &self.process, &self.args, &self.key])?;
        Ok((row.get(0), row.get(1)))
    }
}

/// One caller.
struct Caller<'a> {
    world: &'a World,
    number: u64,
    user: &'static str,
    session: Option<Client>,
    /// The last call that was committed for certain, and its run.
    last: Option<(Call, Uuid)>,
}

/// Calls until the storm is over.
pub fn run(world: &World, number: u64) {
    let user = if number == 0 { "postgres" } else { CALLERS[number as usize % CALLERS.len()] };
    let mut caller = Caller { world, number, user, session: None, last: None };
    let mut step = 0;
    while !world.is_over() {
        let mut rng = Rng::new(world.seed, 1000 + number, step);
        let act = rng.weighted(&ACTS);
        if let Err(error) = caller.act(act, step, &mut rng) {
            caller.note(act, &error);
        }
        step += 1;
        std::thread::sleep(Duration::from_millis(rng.between(5, 90)));
    }
}

impl Caller<'_> {
    /// An error of the server, or the loss of it. Anything that a storm does not explain is wrong.
    fn note(&mut self, act: Act, error: &postgres::Error) {
        let code = error.code().map_or("connection", |code| code.code()).to_owned();
        *self.world.errors().entry(code).or_default() += 1;
        let Some(error) = error.as_db_error() else {
            self.session = None;
            return;
        };
        // Shutdowns and crashes, lock timeouts, deadlocks, the limits of prepared transactions, cancels of a wait.
        let known = ["57P01", "57P02", "57P03", "55P03", "40P01", "40001", "53200", "42704", "57014", "55000"];
        if !known.contains(&error.code().code()) {
            self.world.wrong().push(format!("a caller got {} {error} in {act:?}", error.code().code()));
        }
        if error.code().code().starts_with("57P") {
            self.session = None;
        } else if let Some(session) = &mut self.session {
            let _ = session.batch_execute("ROLLBACK");
        }
    }

    fn connect(&mut self) -> Result<(), postgres::Error> {
        if self.session.as_ref().is_none_or(Client::is_closed) {
            let mut session = self.world.server().session(DATABASE, self.user)?;
            session.batch_execute("SET lock_timeout = '300ms'")?;
            self.session = Some(session);
        }
        Ok(())
    }

    fn act(&mut self, act: Act, step: u64, rng: &mut Rng) -> Result<(), postgres::Error> {
        self.connect()?;
        let calls: Vec<Call> =
            (0..rng.between(2, 4)).map(|i| Call::new(rng, format!("{}-{step}-{i}", self.number))).collect();
        match act {
            Act::Single => self.commit(calls.into_iter().take(1).collect(), None, Told::Committed),
            Act::Several => self.commit(calls, None, Told::Committed),
            Act::Savepoint => self.commit(calls, Some(1), Told::Committed),
            Act::Rollback => self.roll_back(&calls),
            Act::Promise => self.commit(calls.into_iter().take(1).collect(), None, Told::Promised),
            Act::Prepare => self.prepare(&calls, step),
            Act::Finish => self.finish(rng.percent(80)),
            Act::Repeat => self.repeat(),
            Act::Cancel => self.cancel(),
        }
    }

    /// Calls in one transaction that commits; `undone` is the call after which a savepoint is rolled back.
    fn commit(&mut self, mut calls: Vec<Call>, undone: Option<usize>, told: Told) -> Result<(), postgres::Error> {
        let world = self.world;
        let Some(session) = &mut self.session else { return Ok(()) };
        let mut transaction = session.transaction()?;
        if told == Told::Promised {
            transaction.batch_execute("SET LOCAL synchronous_commit = off")?;
        }
        let (mut kept, mut last) = (Vec::new(), None);
        for (i, call) in calls.iter().enumerate() {
            if undone == Some(i) {
                let mut savepoint = transaction.savepoint("s")?;
                let (run, _) = call.on(&mut savepoint)?;
                savepoint.rollback()?;
                tell(world, &[(run, call.mode)], Told::RolledBack);
            } else {
                let (run, status) = call.on(&mut transaction)?;
                kept.push((run, call.mode));
                if status == "queued" {
                    last = Some((i, run));
                }
            }
        }
        let done = transaction.commit();
        match &done {
            Ok(()) => tell(world, &kept, told),
            Err(_) => tell(world, &kept, Told::Unknown),
        }
        if done.is_ok() && told == Told::Committed {
            self.last = last.map(|(i, run)| (calls.swap_remove(i), run));
        }
        done
    }

    fn roll_back(&mut self, calls: &[Call]) -> Result<(), postgres::Error> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let mut transaction = session.transaction()?;
        let mut runs = Vec::new();
        for call in calls {
            runs.push((call.on(&mut transaction)?.0, call.mode));
        }
        tell(self.world, &runs, Told::RolledBack);
        transaction.rollback()
    }

    /// Only tools without a lease of their own: a prepared transaction holds it against everybody.
    fn prepare(&mut self, calls: &[Call], step: u64) -> Result<(), postgres::Error> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let free = |call: &&Call| call.mode != "plan" && call.code.contains("FREE");
        session.batch_execute("BEGIN")?;
        let mut runs = Vec::new();
        for call in calls.iter().filter(free) {
            runs.push((call.on(session)?.0, call.mode));
        }
        let name = format!("storm-{}-{step}", self.number);
        if runs.is_empty() {
            return session.batch_execute("ROLLBACK");
        }
        tell(self.world, &runs, Told::Unknown);
        let runs = runs.into_iter().map(|(run, _)| run).collect();
        let done = session.batch_execute(&format!("PREPARE TRANSACTION '{name}'"));
        if done.is_ok() {
            self.world.prepared().push(Prepared { name, runs });
        }
        done
    }

    fn finish(&mut self, commit: bool) -> Result<(), postgres::Error> {
        let Some(prepared) = take_first(self.world) else { return Ok(()) };
        // Only a superuser may end what another role has prepared.
        finish(self.world, &mut self.world.server().session(DATABASE, "postgres")?, &prepared, commit)
    }

    /// The same call again gives the same run.
    fn repeat(&mut self) -> Result<(), postgres::Error> {
        let (Some(session), Some((call, first))) = (&mut self.session, &self.last) else { return Ok(()) };
        let (again, status) = call.on(session)?;
        // A run that the second gate refused has let its key go.
        let sql = "SELECT run_status = 'refused' FROM dot_wrapper.dot_run WHERE run_id = $1";
        let admin = &mut self.world.server().session(DATABASE, "postgres")?;
        let released = admin.query_opt(sql, &[first])?.is_some_and(|row| row.get(0));
        if again != *first && status != "refused" && !released {
            let (key, code) = (&call.key, call.code);
            self.world.wrong().push(format!("run {first} of {code} was asked for again ({key}) and became {again}"));
        }
        Ok(())
    }

    fn cancel(&mut self) -> Result<(), postgres::Error> {
        let (Some(session), Some((_, run))) = (&mut self.session, &self.last) else { return Ok(()) };
        session.execute("SELECT fn_dot_cancel($1, 'the storm')", &[run]).map(drop)
    }
}

fn take_first(world: &World) -> Option<Prepared> {
    let mut prepared = world.prepared();
    (!prepared.is_empty()).then(|| prepared.remove(0))
}

/// Ends a prepared transaction.
fn finish(world: &World, session: &mut Client, of: &Prepared, commit: bool) -> Result<(), postgres::Error> {
    let verb = if commit { "COMMIT" } else { "ROLLBACK" };
    let done = session.batch_execute(&format!("{verb} PREPARED '{}'", of.name));
    if done.is_ok() {
        let told = if commit { Told::Committed } else { Told::RolledBack };
        let now = SystemTime::now();
        for asked in world.asked().iter_mut().filter(|asked| of.runs.contains(&asked.run)) {
            (asked.told, asked.at) = (told, now);
        }
    }
    done
}

/// Ends all prepared transactions that are left.
pub fn finish_all(world: &World, session: &mut Client) -> Result<(), postgres::Error> {
    while let Some(prepared) = take_first(world) {
        finish(world, session, &prepared, true)?;
    }
    // Those whose PREPARE was not answered; their callers know nothing.
    for row in session.query("SELECT gid FROM pg_prepared_xacts", &[])? {
        session.batch_execute(&format!("ROLLBACK PREPARED '{}'", row.get::<_, String>(0)))?;
    }
    Ok(())
}

fn tell(world: &World, runs: &[(Uuid, &'static str)], told: Told) {
    let at = SystemTime::now();
    world.asked().extend(runs.iter().map(|(run, mode)| Asked { run: *run, mode, told, at }));
}
