//! A database whose owner is no superuser and has brought the whole substrate: his code is what the gates call.

use postgres::Client;

use super::{Bench, Cluster};

/// The database and its owner.
pub struct Owned {
    /// The bench.
    pub bench: Bench,
    /// Who owns the database, and all of the substrate.
    pub owner: String,
}

const SUBSTRATE: &str = "
    CREATE TABLE dot_tools (code text, name text, status text, execution_engine text, usage_count int, last_executed timestamptz);
    CREATE TABLE dot_config (key text, value text);
    INSERT INTO dot_config VALUES ('iu_core.operator_runtime_enabled', ''), ('fs_snapshot_present', '');
    CREATE TABLE dot_iu_runtime_lease (lease_key text PRIMARY KEY, holder text, expires_at timestamptz);
    CREATE TABLE seen (who text, session text);
    CREATE FUNCTION fn_assert_safe_for_dot_action() RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION fn_dot_iu_runtime_lease_acquire(text, text, interval) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION fn_dot_iu_runtime_lease_release(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION fn_dot_iu_operator_runtime_enabled() RETURNS boolean LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.seen VALUES (current_user, session_user); RETURN true; END';";

impl Owned {
    /// In the shared cluster.
    pub fn new() -> Owned {
        let bench = Bench::empty(Cluster::shared());
        let owner = bench.role("owner");
        bench.exec(&format!("ALTER DATABASE {} OWNER TO {owner}", bench.name));
        bench.connect_as(&owner).batch_execute(SUBSTRATE).unwrap();
        bench.exec("CREATE EXTENSION dot_wrapper");
        bench.furnish();
        Owned { bench, owner }
    }

    /// A session of the owner's.
    pub fn owner(&self) -> Client {
        self.bench.connect_as(&self.owner)
    }

    /// Panics when the owner has become more than he was.
    #[track_caller]
    pub fn is_still_ordinary(&self, what: &str) {
        let sql = "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = $1";
        assert!(!self.bench.one::<bool>(sql, &[&self.owner]), "{what} has made the owner more than he was");
    }

    /// Replaces the toggle by one that does something, in PL/pgSQL, and then allows everything.
    #[track_caller]
    pub fn toggle(&self, body: &str) {
        self.replace("fn_dot_iu_operator_runtime_enabled()", body);
    }

    /// Replaces one of the boolean functions by one that does something and then says yes.
    #[track_caller]
    pub fn replace(&self, function: &str, body: &str) {
        let sql = format!(
            "CREATE OR REPLACE FUNCTION {function} RETURNS boolean LANGUAGE plpgsql AS
             $f$ BEGIN {body}; RETURN true; END $f$"
        );
        self.owner().batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }
}
