#!/usr/bin/env bash
# Plans tools, then verifies them, in one process run, and says what came of each:
#
#   examples/dry_run.sh [--pg VERSION]              the 103 KG tools of the example catalogue, on a private cluster, against
#                                                   the reference agent; `make dry-run` installs and builds first
#   examples/dry_run.sh --dsn CONNINFO [--filter JSON] [--args JSON] [--wait INTERVAL] [--agent HOST:PORT]
#                                                   the tools of your own catalogue, by your own agent. --agent: where a
#                                                   reference agent says what it has done
#
# OUT=FILE keeps the result as JSON; two runs of the same thing have the same `comparable` part, byte by byte.
# BASELINE=FILE compares with one that was kept. Exit code: 0 where nothing is worse (without a baseline: where every tool
# passes or is retired), 1 where something is, 2 where it could not be told. It never applies anything.
set -euo pipefail

version=15 dsn='' filter='{"domain": "knowledge_graph"}' args='{}' wait='5 min' agent='' work='' name='' told=''
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || { echo "$1 wants a value" >&2; exit 2; }
    case $1 in
        --pg) version=$2 ;;
        --dsn) dsn=$2 ;;
        --filter) filter=$2 ;;
        --args) args=$2 ;;
        --wait) wait=$2 ;;
        --agent) agent=$2 ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
export BASELINE=${BASELINE:-} OUT=${OUT:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

finish() {
    local status=$?
    [ -z "${agent_pid:-}" ] || kill "$agent_pid" 2>/dev/null || true
    [ -z "$name" ] || "$here/.ci/cluster" stop "$name"
    [ -z "$work" ] || rm -rf "$work"
    [ -n "$told" ] || exit 2
    exit "$status"
}
trap finish EXIT
fail() { echo "error: $*" >&2; exit 2; }
[ -z "$BASELINE" ] || [ -r "$BASELINE" ] || fail "there is no baseline $BASELINE"

# sql [OPTION...]: runs what comes in; :'process', :'filter' and the like are filled in by psql.
sql() {
    psql ${dsn:+"$dsn"} -Xq -v ON_ERROR_STOP=1 -v VERBOSITY=terse -v process="${process:-}" -v filter="$filter" -v args="$args" -v wait="$wait" \
        -P pager=off -P footer=off -P border=2 -P linestyle=ascii "$@"
}
get() { sql -At <<<"$1"; }
# What the agent counts itself.
counts() {
    exec 3<>"/dev/tcp/${agent%:*}/${agent##*:}"
    printf 'GET /control/counts HTTP/1.0\r\n\r\n' >&3
    tail -1 <&3
    exec 3>&-
}

# A cluster and an agent of its own. The agent's address is fixed, since it is a part of the requests that are compared.
private() {
    source "$here/.ci/lib.sh"
    agent=127.75.71.1:8077
    name=dry-run-$$
    "$TARGET/debug/examples/reference_agent" --listen "$agent" >"$work/agent" 2>&1 &
    agent_pid=$!
    for _ in $(seq 50); do if grep -q listening "$work/agent"; then break; fi; sleep 0.1; done
    grep -q listening "$work/agent" || fail "the agent did not start: $(cat "$work/agent")"
    "$here/.ci/cluster" start "$name" "$version" --nosync
    eval "$("$here/.ci/cluster" env "$name")"
    export PGDATABASE=dot_dry_run
    createdb "$PGDATABASE"
    sql <<SQL
CREATE EXTENSION dot_wrapper;
CREATE TEMP TABLE csv (code text, name text, status text, execution_engine text, script_path text, file_path text,
    tier text, domain text, trigger_type text, usage_count bigint, last_executed timestamptz, provenance text);
\copy csv FROM '$here/examples/catalogue/dot_tools.csv' CSV HEADER
INSERT INTO dot_tools (code, name, status, execution_engine, script_path, file_path, tier, domain, trigger_type)
    SELECT code, name, status, execution_engine, script_path, file_path, tier, domain, trigger_type FROM csv;
INSERT INTO dot_wrapper.endpoint (name, base_url) VALUES ('agent', 'http://$agent');
INSERT INTO dot_wrapper.egress_rule (scheme, host, port, cidrs) VALUES ('http', '${agent%:*}', ${agent##*:}, '{${agent%:*}/32}');
INSERT INTO dot_wrapper.policy (scope, name, endpoint, modes) VALUES ('engine', 'agent_api', 'agent', '{verify}');
UPDATE dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled';
UPDATE dot_config SET value = '1' WHERE key = 'fs_snapshot_present';
SQL
    for _ in $(seq 100); do
        if [ "$(get "SELECT verdict FROM fn_dot_doctor() WHERE check_name = 'worker'")" = OK ]; then return; fi
        sleep 0.1
    done
    fail "there is no worker"
}

work=$(mktemp -d /tmp/dotr.XXXXXX)
[ -n "$dsn" ] || private
process=$(get 'SELECT gen_random_uuid();')

planned=$(get "SELECT count(*) FROM fn_dot_run_all(:'filter', 'plan', :'process', :'args');")
[ "$planned" -gt 0 ] || fail "no tool of the catalogue matches $filter"
get "SELECT FROM fn_dot_run_all(:'filter', 'verify', :'process', :'args');" >/dev/null
sql >/dev/null <<<"SELECT FROM fn_dot_wait_all(:'process', :'wait');"

# One session for all that is told of it. The baseline's comparable part goes in as it was kept.
kept='\set kept'
[ -z "$BASELINE" ] || kept='\set kept `cat "$BASELINE"`'
sql <<SQL
$kept
CREATE TEMP TABLE report AS
    SELECT * FROM fn_dot_dry_run_report(:'process', NULL, nullif(:'kept', '')::jsonb -> 'comparable');
CREATE TEMP VIEW now AS SELECT * FROM report WHERE verdict IS NOT NULL;
\t on
\pset format unaligned
\echo
SELECT format('Dry run of %s tools, planned and verified in process run %s, in %s s', tools, process_run_id,
              round(extract(epoch FROM last_at - first_at), 1)) FROM dot_process_run WHERE process_run_id = :'process';
\pset format aligned
\t off
\echo
SELECT n.verdict, n.verify_status AS verify, n.verify_reason AS reason, count(*) AS tools FROM now n GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3;
SELECT count(*) > 0 AS some FROM now WHERE verdict <> 'PASS' \gset
\if :some
\echo
\echo What does not pass:
SELECT code, name, verdict, why FROM now WHERE verdict <> 'PASS' ORDER BY verdict, code COLLATE "C";
\endif
SELECT count(change) > 0 AS compared, count(*) FILTER (WHERE change <> 'same') > 0 AS differs FROM report \gset
\if :compared
\echo
\echo Against the baseline:
SELECT change, count(*) AS tools FROM report GROUP BY 1 ORDER BY 2 DESC, 1;
\if :differs
SELECT code, change, baseline_verdict AS was, verdict AS is, why FROM report WHERE change <> 'same'
    ORDER BY array_position('{worse,new,changed,better,gone}', change), code COLLATE "C";
\endif
\endif
\t on
\pset format unaligned
\o $work/bad
SELECT count(*) FROM report WHERE CASE WHEN change IS NULL THEN verdict NOT IN ('PASS', 'RETIRED')
    ELSE change = 'worse' OR (change = 'new' AND verdict NOT IN ('PASS', 'RETIRED')) END;
\o $work/json
SELECT '{"comparable": {' UNION ALL
SELECT '"args": ' || (:'args'::jsonb)::text || ',' UNION ALL
SELECT '"filter": ' || (:'filter'::jsonb)::text || ',' UNION ALL
SELECT '"tools": [' UNION ALL
SELECT (SELECT string_agg(row_to_json(t)::text, E',\n' ORDER BY t.code COLLATE "C") FROM (
    SELECT code, fingerprint, plan_reason, plan_status, verdict, verify_reason, verify_status FROM now) t) UNION ALL
SELECT '],' UNION ALL
SELECT '"verdicts": ' || (SELECT row_to_json(v) FROM (
    SELECT count(*) FILTER (WHERE verdict = 'FAILED') AS "FAILED", count(*) FILTER (WHERE verdict = 'PASS') AS "PASS",
           count(*) FILTER (WHERE verdict = 'PENDING') AS "PENDING", count(*) FILTER (WHERE verdict = 'REFUSED') AS "REFUSED",
           count(*) FILTER (WHERE verdict = 'RETIRED') AS "RETIRED" FROM now) v)::text UNION ALL
SELECT '},' UNION ALL
SELECT '"run": ' || row_to_json(p)::text || '}' FROM (
    SELECT first_at, last_at, process_run_id FROM dot_process_run WHERE process_run_id = :'process') p;
SQL

echo
applies=$(get "SELECT count(*) FROM dot_observation WHERE process_run_id = :'process' AND layer = 'dot' AND mutating;")
echo "Applies in this process run: $applies."
if [ -n "$agent" ]; then
    counted=$(counts)
    echo "The agent's own count since it was started: $counted."
    [ -n "$dsn" ] || [[ $counted == *'"effects":0,'* ]] || fail "the agent has changed something"
else
    echo "No agent was asked for its own count (--agent)."
fi
[ -z "$OUT" ] || { cp "$work/json" "$OUT"; echo "Kept in $OUT."; }

bad=$(cat "$work/bad")
told=yes
case "$bad,$BASELINE" in
    0,) echo "Every tool passes or is retired." ;;
    0,*) echo "Nothing is worse than in $BASELINE." ;;
    *,) echo "$bad tools do not pass."; exit 1 ;;
    *) echo "$bad tools are worse than in $BASELINE, or new and do not pass."; exit 1 ;;
esac
