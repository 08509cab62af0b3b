#!/usr/bin/env bash
# The whole of dot_wrapper on a private cluster, against a private agent: examples/demo.sh [VERSION]
#
# `make demo` installs and builds first. It says what it does, shows the SQL, checks what came of it, and fails where that
# is not what it said. Cluster, agent and secret are temporary; nothing of it stays.
source "$(dirname "${BASH_SOURCE[0]}")/../.ci/lib.sh"

version=${1:-15}
source "$ROOT/examples/demo/stage.sh"

tell "A private PostgreSQL $version with dot_wrapper preloaded, and an agent that wants a secret token."
cluster start "$name" "$version" --nosync --conf "$work/postgresql.conf"
eval "$(cluster env "$name")"
export PGDATABASE=dot_demo
createdb "$PGDATABASE"
DOT_AGENT_TOKEN=$secret "$agent" --listen 127.0.0.1:0 --record "$work/record" >"$work/agent" 2>&1 &
agent_pid=$!
for _ in $(seq 50); do grep -q listening "$work/agent" && break; sleep 0.1; done
port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$work/agent")
[ -n "$port" ] || die "the agent did not start: $(cat "$work/agent")"
more "The agent listens on port $port. Requests that it has seen: none."
sql "CREATE EXTENSION dot_wrapper;"
must "the worker" "SELECT verdict FROM fn_dot_doctor() WHERE check_name = 'worker'" OK
more "A background worker has found the database by itself."

tell "The catalogue: 303 tools. None has ever been run."
run >/dev/null <<SQL
CREATE TEMP TABLE csv (code text, name text, status text, execution_engine text, script_path text, file_path text,
    tier text, domain text, trigger_type text, usage_count bigint, last_executed timestamptz, provenance text);
\copy csv FROM '$ROOT/examples/catalogue/dot_tools.csv' CSV HEADER
INSERT INTO dot_tools (code, name, status, execution_engine, script_path, file_path, tier, domain, trigger_type)
    SELECT code, name, status, execution_engine, script_path, file_path, tier, domain, trigger_type FROM csv;
SQL
sql "SELECT execution_engine, status, count(*), sum(usage_count) AS used FROM dot_tools GROUP BY 1, 2 ORDER BY 1, 2;"
must "the catalogue" "SELECT count(*) FROM dot_tools" 303

tell "Where the agent is, that it may be called, and that its tools can be verified. The token is named, not shown."
sql "INSERT INTO dot_wrapper.endpoint (name, base_url, auth_secret) VALUES ('agent', 'http://127.0.0.1:$port', 'agent_token');
INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '127.0.0.1', $port, '{127.0.0.1/32}');
INSERT INTO dot_wrapper.policy (scope, name, endpoint, modes) VALUES ('engine', 'agent_api', 'agent', '{verify,apply}');"

process=d07d07d0-0000-4000-8000-000000000001
tell "Plan all 184 agent_api tools as one process run. Nothing leaves the database; retired tools are refused."
sql "SELECT run_status, reason, count(*), count(DISTINCT process_run_id) AS process_runs
FROM fn_dot_run_all('{\"execution_engine\": \"agent_api\"}', 'plan', '$process')
GROUP BY 1, 2 ORDER BY 3 DESC;"
must "planned" "SELECT count(*) FROM dot_run WHERE process_run_id = '$process' AND run_status = 'planned'" 175
must "refused" "SELECT count(*) FROM dot_run WHERE process_run_id = '$process' AND run_status = 'refused'" 9
more "What the agent would get for one of them, were it applied:"
sql "SELECT request ->> 'url' AS url, request #> '{body,args}' AS args FROM dot_run WHERE code = 'DOT-KG-017';"

tell "Apply one. The master toggle is off: refused. The refusal is a row, with what every gate said."
order refused "'DOT-KG-017', 'apply', '$process', '{\"scope\": \"all\"}'"
sql "SELECT gate, verdict, reason, message
FROM dot_run_gate WHERE run_id = '$refused' ORDER BY position;"
must "the refused apply" "SELECT run_status FROM dot_run WHERE run_id = '$refused'" refused
[ "$(calls)" -eq 0 ] || die "the agent has been called"
more "The agent has still seen no request."

tell "The doctor says what stands in the way, and an operator clears it."
sql "SELECT check_name, verdict, left(detail, 80) AS detail FROM fn_dot_doctor() WHERE verdict <> 'OK';"
sql "UPDATE dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled';
UPDATE dot_config SET value = '1' WHERE key = 'fs_snapshot_present';"
must "the doctor" "SELECT count(*) FROM fn_dot_doctor() WHERE verdict = 'BLOCK'" 0

tell "Verify: the agent is asked, and may not change anything."
order verify "'DOT-KG-017', 'verify', '$process', '{\"scope\": \"all\"}'"
sql "SELECT run_status, attempts, result FROM fn_dot_wait('$verify');"
must "the verify" "SELECT run_status FROM dot_run WHERE run_id = '$verify'" succeeded

tell "Apply. The call is the one that was refused above: a refusal does not use its key up."
order apply "'DOT-KG-017', 'apply', '$process', '{\"scope\": \"all\"}'"
sql "SELECT run_status, attempts, fencing_token, result FROM fn_dot_wait('$apply');"
must "the apply" "SELECT run_status FROM dot_run WHERE run_id = '$apply'" succeeded

tell "Apply it again, by accident: the first run comes back, and the agent is not called."
before=$(calls)
order again "'DOT-KG-017', 'apply', '$process', '{\"scope\": \"all\"}'"
sql "SELECT '$again' = '$apply' AS the_first_run;"
[ "$again" = "$apply" ] || die "the repeated apply is another run"
[ "$(calls)" -eq "$before" ] || die "the agent has been called again"

tell "Two applies of one tool at once: the first holds the lease (the agent is told to dawdle), the second is refused."
order held "'DOT-KG-018', 'apply', args => '{\"agent\": \"hold\"}'"
for _ in $(seq 100); do grep -q "$held" "$work/record" && break; sleep 0.1; done
order second "'DOT-KG-018', 'apply'"
sql "SELECT run_status, reason, message FROM dot_run WHERE run_id = '$second';"
sql "SELECT lease_key, right(holder, 6) AS holder, expires_at > now() AS live FROM dot_iu_runtime_lease;"
must "the second apply" "SELECT reason FROM dot_run WHERE run_id = '$second'" lease_held
more "Now the agent answers; the run ends, and the lease is free again."
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'POST /control/release HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' >&3
cat <&3 >/dev/null
sql "SELECT run_status, fencing_token FROM fn_dot_wait('$held');"
must "the held apply" "SELECT run_status FROM dot_run WHERE run_id = '$held'" succeeded
must "the lease" "SELECT count(*) FROM dot_iu_runtime_lease WHERE expires_at > now()" 0
must "the counters" "SELECT sum(usage_count) FROM dot_tools" 3

tell "The ledger, without the plans: runs, deliveries, what happened to the apply, and the catalogue's counters."
sql "SELECT right(run_id::text, 6) AS run, code, mode, run_status, reason, attempts, fencing_token AS token
FROM dot_run WHERE mode <> 'plan' ORDER BY run_id;"
sql "SELECT right(run_id::text, 6) AS run, attempt, ended_in, http_status, elapsed_ms FROM dot_run_attempt ORDER BY intent_at;"
sql "SELECT right(run_id::text, 6) AS run, event, from_status, to_status
FROM dot_run_event WHERE run_id = '$apply' ORDER BY event_id;"
sql "SELECT code, usage_count, last_executed IS NOT NULL AS executed FROM dot_tools WHERE usage_count > 0 ORDER BY code;"

source "$ROOT/examples/demo/mechanisms.sh"

tell "The token was sent, and is nowhere: not in a table, not in a setting, not in the server's log."
[ "$(calls)" -ge 9 ] || die "the agent has seen $(calls) requests only"
pg_dump --data-only --schema=public --schema=dot_wrapper >"$work/looked"
for view in pg_settings dot_run dot_run_gate dot_run_event dot_run_attempt dot_observation; do get "TABLE $view" >>"$work/looked"; done
cat "$(cluster log "$name")" >>"$work/looked"
! grep -q "$secret" "$work/looked" || die "the token shows"
more "Looked for it in $(wc -l <"$work/looked") lines. Done: cluster, agent and secret are removed."
