# Sourced by demo.sh: one run by each of the other ways. All go through the same gates, ledger and worker.
# shellcheck shell=bash

tell "On a schedule: the catalogue says that a tool is due every minute, and pg_cron gets a job for it."
sql "UPDATE dot_tools SET trigger_type = 'cron', schedule = '* * * * *' WHERE code = 'DOT-KG-030';"
[ -z "$cron" ] || sql "CREATE EXTENSION pg_cron;"
sql "SELECT code, jobname, schedule, action FROM fn_dot_schedule_sync() WHERE action IN ('created', 'unavailable');"
if [ -n "$cron" ]; then
    must "the job" "SELECT count(*) FROM cron.job WHERE jobname = 'dot_wrapper:DOT-KG-030'" 1
    more "The next minute comes while we go on."
else
    more "This PostgreSQL has no pg_cron, and the function says so. Its tick, called by hand:"
    sql "SELECT mode, run_status, idempotency_key, source FROM fn_dot_tick('DOT-KG-030');"
fi

tell "A script: a program below a directory that only the server's configuration names. No shell, no inherited environment."
sql "INSERT INTO dot_tools (code, name, execution_engine, script_path) VALUES ('DOT-DISK', 'Room on the disk', 'script', 'dot/bin/dot-disk-room');
INSERT INTO dot_wrapper.policy (scope, name, script_args) VALUES ('tool', 'DOT-DISK', ARRAY['{args.dir}', '{args.limit}']);"
sql "SELECT request -> 'args' AS arguments, (SELECT count(*) FROM jsonb_object_keys(request -> 'env')) AS variables
FROM fn_dot_run('DOT-DISK', 'plan', args => '{\"dir\": \"/\", \"limit\": 100}');"
order script "'DOT-DISK', 'apply', args => '{\"dir\": \"/\", \"limit\": 100}'"
sql "SELECT run_status, result -> 'exit_code' AS exit_code, result #>> '{json,limit_percent}' AS its_limit FROM fn_dot_wait('$script');"
must_end "$script" succeeded

tell "By a table's change: a thousand rows are updated, and one run follows."
sql "CREATE TABLE orders (id bigint PRIMARY KEY, state text);
INSERT INTO orders SELECT n, 'new' FROM generate_series(1, 1000) n;
UPDATE dot_tools SET trigger_type = 'event' WHERE code = 'DOT-KG-031';
INSERT INTO dot_wrapper.trigger_binding (code, relation, events) VALUES ('DOT-KG-031', 'public.orders', '{update}');"
sql "SELECT code, relation, action FROM fn_dot_trigger_sync();"
sql "UPDATE orders SET state = 'paid';"
must "the event's run" "SELECT count(*) || ' ' || min(run_status) FROM dot_run WHERE source = 'trigger'" "1 succeeded"
sql "SELECT code, run_status, source, source_ref, args FROM dot_run WHERE source = 'trigger';"

tell "As a job: a row of the job queue becomes a run, and shows how it ended."
sql "INSERT INTO dot_wrapper.job_source (run_as) VALUES (current_user);
UPDATE dot_config SET value = 'true' WHERE key = 'queue.worker.enabled';
INSERT INTO job_queue (family, payload, actor) VALUES
    ('job:dot', '{\"code\": \"DOT-KG-032\", \"args\": {\"scope\": \"new\"}}', 'alice'),
    ('job:cut', '{\"not\": \"ours\"}', 'bob');"
must "the job" "SELECT string_agg(family || ' ' || status, ', ' ORDER BY id) FROM job_queue" "job:dot succeeded, job:cut queued"
sql "SELECT j.family, j.status, j.actor, r.run_status, r.actor AS of_the_run FROM job_queue j LEFT JOIN dot_run r USING (run_id) ORDER BY j.id;"

tell "As a row: what Directus and PostgREST do. This role may insert and select here, and nothing else."
sql "CREATE ROLE web LOGIN;
GRANT INSERT, SELECT ON dot_run_request TO web;"
show "INSERT INTO dot_run_request (code, mode) VALUES ('DOT-KG-033', 'apply') RETURNING run_status;   -- as web"
row=$(PGUSER=web get "INSERT INTO dot_run_request (code, mode) VALUES ('DOT-KG-033', 'apply') RETURNING id")
must "the request" "SELECT run_status FROM dot_run_request WHERE id = '$row'" succeeded
show "SELECT code, run_status, result FROM dot_run_request;   -- the same row, as web"
PGUSER=web run -c "SELECT code, run_status, result FROM dot_run_request" | sed '/^$/d; s/^/     /'

dry=d07d07d0-0000-4000-8000-000000000002
tell "The dry run: all 103 knowledge-graph tools are planned and then verified, with a verdict each (make dry-run)."
sql "SELECT count(*) AS planned FROM fn_dot_run_all('{\"domain\": \"knowledge_graph\"}', 'plan', '$dry');
SELECT count(*) AS asked FROM fn_dot_run_all('{\"domain\": \"knowledge_graph\"}', 'verify', '$dry');"
sql "SELECT runs, planned, succeeded, refused, open FROM fn_dot_wait_all('$dry');"
sql "SELECT verdict, count(*) AS tools, min(why) AS why FROM fn_dot_dry_run_report('$dry') GROUP BY 1;"
must "the dry run" "SELECT string_agg(DISTINCT verdict, ' ') || ' ' || count(*) FROM fn_dot_dry_run_report('$dry')" "PASS 103"

if [ -n "$cron" ]; then
    tell "The minute has come: pg_cron has called, and the tick has a key of its own, so that it runs once."
    for _ in $(seq 75); do
        [ "$(get "SELECT count(*) FROM dot_run WHERE source = 'schedule'")" = 0 ] || break
        sleep 1
    done
    must "the tick" "SELECT run_status FROM dot_run WHERE source = 'schedule' ORDER BY run_id LIMIT 1" succeeded
    sql "SELECT code, run_status, idempotency_key, source_ref FROM dot_run WHERE source = 'schedule' ORDER BY run_id LIMIT 1;"
fi

tell "All of it seen as one, by the way it came and with the IU-command layer's rows beside it."
sql "INSERT INTO dot_iu_command_run (command_name, run_mode, run_status, mutating) VALUES ('cut-release', 'apply', 'refused', true);
SELECT layer, source, status, count(*) FROM dot_observation WHERE mode <> 'plan' GROUP BY 1, 2, 3 ORDER BY 1 DESC, 2, 3;"
must "every way" "SELECT count(DISTINCT source) FROM dot_observation WHERE status = 'succeeded'" 5
