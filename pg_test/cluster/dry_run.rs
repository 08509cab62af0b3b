//! The dry run of the KG tools: planned, verified against the reference agent, a verdict each, held against the last one.
//!
//! Does not live here: the rules, case by case (`domain::dry_run`), and the report's misuse (`regress/sql/dry_run.sql`).

use std::io::Write;
use std::process::{Command, Output};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::reference::Reference;
use crate::harness::{Bench, Cluster, Reply, os};

const KG: &str = r#"{"domain": "knowledge_graph"}"#;
const SOME: &str = r#"{"code": ["DOT-1", "DOT-2", "DOT-3", "DOT-4"]}"#;

/// The example catalogue, whole, and an endpoint at this port.
fn catalogue(port: u16) -> Bench {
    let bench = Bench::empty(Cluster::shared());
    bench.exec("CREATE EXTENSION dot_wrapper");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/catalogue/dot_tools.csv");
    let mut session = bench.connect();
    session
        .batch_execute(
            "CREATE TEMP TABLE csv (code text, name text, status text, execution_engine text, script_path text,
                 file_path text, tier text, domain text, trigger_type text, usage_count bigint,
                 last_executed timestamptz, provenance text)",
        )
        .unwrap();
    let mut copy = session.copy_in("COPY csv FROM STDIN CSV HEADER").unwrap();
    copy.write_all(&std::fs::read(path).expect("the catalogue")).unwrap();
    copy.finish().unwrap();
    session
        .batch_execute(&format!(
            "INSERT INTO dot_tools (code, name, status, execution_engine, script_path, file_path, tier, domain, trigger_type)
                 SELECT code, name, status, execution_engine, script_path, file_path, tier, domain, trigger_type FROM csv;
             INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('agent', 'http://127.0.0.1:{port}');
             INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', {port}, '{{127.0.0.1/32}}');
             INSERT INTO dot_wrapper.policy (scope, name, endpoint, modes) VALUES ('engine', 'agent_api', 'agent', '{{verify,apply}}')"
        ))
        .unwrap();
    bench.open();
    bench
}

/// Plans, verifies, waits: the three lines of docs/dry_run.md. The process run.
fn dry_run(bench: &Bench, filter: &str) -> Uuid {
    let process = Uuid::now_v7();
    for mode in ["plan", "verify"] {
        bench.exec(&format!("SELECT FROM fn_dot_run_all('{filter}', '{mode}', '{process}')"));
    }
    bench.exec(&format!("SELECT fn_dot_wait_all('{process}', '40 s')"));
    process
}

/// `CODE VERDICT CHANGE` of each tool.
fn verdicts(bench: &Bench, process: Uuid, baseline: Option<Uuid>) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', code, verdict, change) FROM fn_dot_dry_run_report($1, $2)";
    bench.all(sql, &[&process, &baseline])
}

#[test]
fn all_103_kg_tools_are_planned_and_verified_and_nothing_is_changed() {
    let agent = Reference::start();
    let bench = catalogue(agent.port());
    bench.exec("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-KG-042'");
    let process = dry_run(&bench, KG);
    let seen = verdicts(&bench, process, None);
    assert_eq!(seen.len(), 103);
    let of = |verdict: &str| seen.iter().filter(|line| line.ends_with(verdict)).count();
    assert_eq!((of(" PASS"), of("DOT-KG-042 RETIRED")), (102, 1), "{seen:?}");

    // In one process run, each planned and verified, by the ledger's own word.
    let sql = "SELECT to_jsonb(p) FROM dot_process_run p WHERE process_run_id = $1";
    let all: Value = bench.one(sql, &[&process]);
    let count = |name: &str| all[name].as_i64();
    assert_eq!((count("planned"), count("succeeded"), count("refused")), (Some(102), Some(102), Some(2)), "{all}");
    assert_eq!((count("tools"), &all["open"]), (Some(103), &json!(false)));

    // By the agent's own count nothing has been changed.
    let requests = agent.requests();
    assert_eq!(requests.len(), 102);
    assert!(requests.iter().all(|r| r["body"]["mode"] == "verify" && r["decision"]["executed"] == false));
    assert!(requests.iter().all(|r| r["body"]["process_run_id"] == process.to_string()));

    // The same again is the same in every respect.
    let again = dry_run(&bench, KG);
    assert!(verdicts(&bench, again, Some(process)).iter().all(|line| line.ends_with(" same")));
}

#[test]
fn a_broken_tool_fails_and_is_worse_than_before_and_better_when_it_is_mended() {
    let bench = Bench::shared();
    let before = dry_run(&bench, SOME);
    assert_eq!(verdicts(&bench, before, None), ["DOT-1 PASS", "DOT-2 PASS", "DOT-3 PASS", "DOT-4 PASS"]);
    bench.agent.plan(|request| match request.field("dot_code") {
        "DOT-2" => Reply::ended("failed"),
        "DOT-3" => Reply::Json(422, json!({"status": "refused", "message": "the graph is not there"})),
        _ => Reply::succeeded(),
    });
    bench.exec("UPDATE dot_tools SET status = 'retired' WHERE code = 'DOT-4'");
    let broken = dry_run(&bench, SOME);
    assert_eq!(
        verdicts(&bench, broken, Some(before)),
        ["DOT-1 PASS same", "DOT-2 FAILED worse", "DOT-3 FAILED worse", "DOT-4 RETIRED changed"]
    );
    let why: String = bench.one("SELECT why FROM fn_dot_dry_run_report($1) WHERE code = 'DOT-3'", &[&broken]);
    assert!(why.starts_with("verify failed: ") && why.contains("the graph is not there"), "{why}");
    bench.agent.reply(Reply::succeeded());
    bench.exec("UPDATE dot_tools SET status = 'active' WHERE code = 'DOT-4'");
    let mended = dry_run(&bench, SOME);
    let better = verdicts(&bench, mended, Some(broken));
    assert_eq!(better[1..], ["DOT-2 PASS better", "DOT-3 PASS better", "DOT-4 PASS better"]);
    assert!(verdicts(&bench, mended, Some(before)).iter().all(|line| line.ends_with(" same")));
}

/// With the toggle off nothing leaves the database, and every tool says why.
#[test]
fn a_closed_gate_refuses_every_verify_and_the_report_names_it() {
    let bench = Bench::shared();
    bench.exec("UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'");
    let process = dry_run(&bench, SOME);
    let why: Vec<String> = bench.all("SELECT verdict || ': ' || why FROM fn_dot_dry_run_report($1)", &[&process]);
    assert_eq!(why, vec!["REFUSED: verify refused: gate toggle: the master toggle is off"; 4]);
    assert_eq!(bench.agent.count(), 0);
    let sql = "SELECT refusals FROM dot_process_run WHERE process_run_id = $1";
    assert_eq!(bench.one::<Value>(sql, &[&process]), json!({"toggle": 4}));
}

#[test]
fn a_role_that_is_no_more_than_granted_gets_a_report_of_its_own_runs_only() {
    let bench = Bench::shared();
    let ann = bench.caller("ann");
    bench.exec(&format!(
        "GRANT EXECUTE ON FUNCTION fn_dot_run_all, fn_dot_wait_all, fn_dot_dry_run_report, fn_dot_iu_commands TO {ann};
         GRANT SELECT ON dot_process_run TO {ann}"
    ));
    let process = dry_run(&bench, SOME);
    let mut session = bench.connect_as(&ann);
    for mode in ["plan", "verify"] {
        let sql = format!("SELECT FROM fn_dot_run_all('{{\"code\": [\"DOT-5\"]}}', '{mode}', '{process}')");
        session.batch_execute(&sql).unwrap();
    }
    session.batch_execute(&format!("SELECT fn_dot_wait_all('{process}')")).unwrap();
    let rows = session.query("SELECT code || ' ' || verdict FROM fn_dot_dry_run_report($1)", &[&process]).unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["DOT-5 PASS"]);
    assert_eq!(verdicts(&bench, process, None).len(), 5);
}

/// `examples/dry_run.sh` against a server that is there, as `make dry-run` runs it against one of its own.
fn script(bench: &Bench, out: &str, baseline: Option<&str>) -> Output {
    let bindir = os::run(Command::new(os::variable("DOT_TEST_PG_CONFIG")).arg("--bindir"));
    let dsn = format!("host={} user=postgres dbname={}", bench.cluster.dir().display(), bench.name);
    let path = format!("{}:{}", bindir.trim(), std::env::var("PATH").unwrap_or_default());
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/dry_run.sh"))
        .args(["--dsn", &dsn, "--filter", SOME])
        .env("PATH", path)
        .env("OUT", out)
        .env("BASELINE", baseline.unwrap_or_default())
        .output()
        .expect("the script")
}

fn comparable(file: &str) -> String {
    let text = std::fs::read_to_string(file).expect("what the script kept");
    let parsed: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(parsed["comparable"]["tools"].as_array().map(Vec::len), Some(4));
    text.lines().filter(|line| !line.starts_with("\"run\"")).collect()
}

#[test]
fn the_script_keeps_what_can_be_compared_and_its_exit_code_says_worse() {
    let bench = Bench::shared();
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(&bench.name);
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (first, second, third) = (file("1.json"), file("2.json"), file("3.json"));
    let shown = |output: &Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };

    let output = script(&bench, &first, None);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let output = script(&bench, &second, Some(&first));
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains("same") && shown(&output).contains("Applies in this process run: 0."));
    assert_eq!(comparable(&first), comparable(&second), "byte by byte");

    bench.agent.plan(|request| match request.field("dot_code") {
        "DOT-2" => Reply::ended("failed"),
        _ => Reply::succeeded(),
    });
    let output = script(&bench, &third, Some(&first));
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("1 tools are worse than in"), "{}", shown(&output));
    // What is broken as it was before is no news.
    assert_eq!(script(&bench, &second, Some(&third)).status.code(), Some(0));
    assert_eq!(script(&bench, &second, Some(&file("nothing.json"))).status.code(), Some(2));
    std::fs::remove_dir_all(dir).unwrap();
}
