//! Canaries: secrets that look like nothing else, an endpoint for each place where a secret can be, agents that give them
//! away, and every place of a server where one could show.

use std::process::Command;
use std::sync::Arc;

use serde_json::json;

use super::{Bench, Cluster, Reply, Request, os};

/// Nothing else looks like it.
pub const IN_FILE: &str = "canary-in-file-5f1d0c9be2";
/// Nor like this.
pub const IN_ENVIRONMENT: &str = "canary-in-environment-77ab31";

/// A cluster that tells its log everything, with more lines for its configuration, and an endpoint for each place where a
/// secret can be: DOT-1 has the file's, DOT-2 the environment's.
pub fn bench(more: &[&str]) -> Bench {
    let mut talkative = vec![
        "log_statement = all",
        "log_min_messages = debug2",
        "log_min_error_statement = debug1",
        "log_error_verbosity = verbose",
        "log_parameter_max_length_on_error = -1",
        "track_activity_query_size = 32kB",
    ];
    talkative.extend(more);
    let cluster = Cluster::start(&talkative, &[("DOT_SECRET_ENV_TOKEN", IN_ENVIRONMENT)]);
    cluster.write_secret("file_token", &format!("{IN_FILE}\n"));
    let bench = Bench::on(Arc::new(cluster));
    bench.exec(
        "UPDATE dot_wrapper.endpoint SET auth_secret = 'file_token';
         INSERT INTO dot_wrapper.endpoint (name, base_url, auth_header, auth_scheme, auth_secret, breaker_failures)
             SELECT 'second', base_url, 'X-Token', '', 'env.token', 0 FROM dot_wrapper.endpoint;
         INSERT INTO dot_wrapper.policy (scope, name, endpoint) VALUES ('tool', 'DOT-2', 'second');
         UPDATE dot_wrapper.policy SET lease = 'none', total_timeout_ms = 3000 WHERE name = 'agent_api'",
    );
    bench
}

/// The secret that reached the agent.
pub fn secret_of(request: &Request) -> String {
    let bearer = request.header("authorization").trim_start_matches("Bearer ");
    if bearer.is_empty() { request.header("x-token").to_owned() } else { bearer.to_owned() }
}

/// Everything that an agent can do to have a secret written down, each with the state that follows.
pub fn echoes(secret: &str) -> Vec<Reply> {
    let body = |status: &str| {
        json!({"status": status, "message": format!("I got {secret}"), "error": secret,
               "result": {"whole": secret, "part": format!("Bearer {secret}!"), secret: [secret, {"deep": secret}]},
               "observations": [secret, {secret: 1}]})
    };
    let bytes = |text: String| Reply::Bytes(text.into_bytes());
    let escaped: String = secret.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let escaped = format!(r#"{{"status":"failed","message":"{escaped}","result":"{escaped}"}}"#);
    let length = escaped.len();
    vec![
        Reply::Json(200, body("succeeded")),
        Reply::Json(200, body("failed")),
        Reply::Json(200, body("refused")),
        Reply::Json(200, body(secret)),
        Reply::Json(422, body("refused")),
        Reply::Json(503, body("failed")),
        bytes(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{escaped}"
        )),
        bytes(format!("HTTP/1.1 200 OK\r\nContent-Type: text/{secret}\r\nContent-Length: 0\r\n\r\n")),
        bytes(format!("HTTP/1.1 200 OK\r\nContent-Encoding: {secret}\r\nContent-Length: 0\r\n\r\n")),
        bytes(format!("HTTP/1.1 302 Found\r\nLocation: /{secret}\r\nContent-Length: 0\r\n\r\n")),
        bytes(format!("HTTP/1.1 202 Accepted\r\nLocation: /{secret}\r\nContent-Length: 0\r\n\r\n")),
        bytes(format!("HTTP/1.1 202 Accepted\r\nLocation: http://{secret}/\r\nContent-Length: 0\r\n\r\n")),
        bytes(format!("HTTP/1.1 200 {secret}\r\n{secret}\r\n\r\n")),
        bytes(format!("{secret}\r\n\r\n")),
        Reply::Close,
    ]
}

/// Where one of the secrets shows, among everything that can be read of this server.
pub fn shown(bench: &Bench) -> Vec<&'static str> {
    let rows = |sql: &str| bench.all::<String>(sql, &[]).join("\n");
    let texts = [
        ("the dump", os::run(bench.cluster.client("pg_dump", &bench.name).arg("--inserts"))),
        ("the roles", os::run(bench.cluster.client("pg_dumpall", &bench.name).arg("-g"))),
        (
            "the permits' tables",
            rows("SELECT i::text FROM dot_wrapper.instance i UNION ALL SELECT l::text FROM dot_wrapper.lease_grant l"),
        ),
        ("the log", bench.cluster.log()),
        ("the activity", rows("SELECT a::text FROM pg_stat_activity a")),
        ("the settings", rows("SELECT s::text FROM pg_settings s")),
        ("the doctor", rows("SELECT d::text FROM fn_dot_doctor() d")),
    ];
    let visible = |text: &String| [IN_FILE, IN_ENVIRONMENT].iter().any(|secret| text.contains(secret));
    let mut found: Vec<_> = texts.iter().filter(|(_, text)| visible(text)).map(|(place, _)| *place).collect();
    // And among the bytes on disk, which also holds what no query shows any more.
    bench.exec("CHECKPOINT");
    let mut grep = Command::new("grep");
    grep.args(["-rlaF", "-e", IN_FILE, "-e", IN_ENVIRONMENT, "--"]).arg(bench.cluster.dir().join("data"));
    found.extend(os::try_run(&mut grep).is_ok().then_some("the data directory"));
    found
}
