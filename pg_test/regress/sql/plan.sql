-- plan: every gate is asked and the request is shown; nothing is taken, queued or sent.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
\set process 00000000-0000-7000-8000-0000000000aa
\pset null '(null)'

SELECT run_id, traceparent
FROM fn_dot_run('A', 'plan', :'process', '{"scope": "all", "limit": 10}', 'a key'),
     LATERAL (SELECT request -> 'headers' ->> 'traceparent' AS traceparent) h \gset
SELECT code, mode, run_status, reason, message, engine, idempotency_key, args, lease_key, fencing_token, start_by, attempts, admitted
FROM dot_wrapper.dot_run WHERE run_id = :'run_id';
-- The request, as the apply would send it: the secret is masked, and what only a delivery knows is null.
SELECT replace(replace(jsonb_pretty(request), :'run_id', '<run_id>'), :'traceparent', '<traceparent>') AS request
FROM dot_run WHERE run_id = :'run_id';
SELECT :'traceparent' ~ ('^00-' || replace(:'process', '-', '') || '-[0-9a-f]{16}-01$') AS traceparent_is_of_the_process;
SELECT stage, position, gate, verdict, reason, message FROM dot_run_gate WHERE run_id = :'run_id' ORDER BY stage, position;
SELECT gate, inputs - 'version' AS inputs FROM dot_run_gate WHERE run_id = :'run_id' ORDER BY position;

-- Nothing was taken or queued.
SELECT (SELECT count(*) FROM dot_wrapper.dot_queue) AS queued, (SELECT count(*) FROM dot_iu_runtime_lease) AS leases,
       (SELECT count(*) FROM dot_wrapper.lease_grant) AS grants, (SELECT count(*) FROM dot_run_attempt) AS attempts,
       (SELECT is_called FROM dot_wrapper.fencing_token_seq) AS token_drawn;

-- The fingerprint is that of the apply which the plan announces, and of nothing else.
CREATE FUNCTION print(code text, mode text DEFAULT 'plan', args jsonb DEFAULT '{"a": 1, "b": 2}') RETURNS text
LANGUAGE sql AS $$ SELECT fingerprint FROM fn_dot_run(code, mode, NULL, args) $$;
SELECT print('B') AS first \gset
SELECT :'first' ~ '^[0-9a-f]{64}$' AS is_sha256,
       print('B') = :'first' AS same_again,
       print('B', 'apply') = :'first' AS same_for_apply,
       print('B', 'verify') = :'first' AS same_for_verify,
       print('B', args => '{"b": 2, "a": 1}') = :'first' AS same_for_other_order,
       print('B', args => '{"a": 1, "b": 3}') = :'first' AS same_for_other_args,
       print('A') = :'first' AS same_for_other_tool;
UPDATE dot_tools SET usage_count = usage_count + 1, last_executed = now() WHERE code = 'B';
SELECT print('B') = :'first' AS same_after_use;
UPDATE dot_tools SET script_path = '/opt/dots/b.sh' WHERE code = 'B';
SELECT print('B') = :'first' AS same_after_change_of_tool;
UPDATE dot_tools SET script_path = NULL WHERE code = 'B';
UPDATE dot_wrapper.endpoint SET path = '/v2/dots/{code}/runs';
SELECT print('B') = :'first' AS same_for_other_target;
UPDATE dot_wrapper.endpoint SET path = DEFAULT;
UPDATE dot_wrapper.endpoint SET auth_secret = 'other-token';
SELECT print('B') = :'first' AS same_for_other_secret;
UPDATE dot_wrapper.endpoint SET auth_secret = 'agent-token';
SELECT print('B') = :'first' AS same_in_the_end;

-- Numbers are kept digit by digit.
SELECT args, request -> 'body' -> 'args' AS sent
FROM fn_dot_run('A', 'plan', NULL, '{"exact": 12345678901234567890.123456789, "tail": 1.10, "small": 1e-20}');

-- How the secret shows: with its scheme, without one, in another header, and not at all.
UPDATE dot_wrapper.endpoint SET auth_header = 'X-Api-Key', auth_scheme = '';
SELECT request -> 'headers' ->> 'x-api-key' AS key, request -> 'headers' ->> 'authorization' AS authorization FROM fn_dot_run('A');
UPDATE dot_wrapper.endpoint SET auth_header = DEFAULT, auth_scheme = 'Token';
SELECT request -> 'headers' ->> 'authorization' AS authorization FROM fn_dot_run('A');
UPDATE dot_wrapper.endpoint SET auth_secret = NULL;
SELECT request -> 'headers' ->> 'authorization' AS authorization FROM fn_dot_run('A');
UPDATE dot_wrapper.endpoint SET auth_secret = 'agent-token', auth_scheme = DEFAULT;

-- Closed gates are told, and the plan stands: there is a request to show.
UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled';
UPDATE dot_config SET value = '0' WHERE key = 'fs_snapshot_present';
DELETE FROM dot_wrapper.egress_rule;
UPDATE dot_wrapper.policy SET modes = '{verify}' WHERE scope = 'engine';
INSERT INTO dot_iu_runtime_lease VALUES ('tool:A', 'somebody', now(), now() + interval '1 hour');
SELECT r.run_status, g.position, g.gate, g.verdict, g.reason
FROM fn_dot_run('A') r JOIN LATERAL (
    SELECT o AS position, d ->> 'gate' AS gate, d ->> 'verdict' AS verdict, d ->> 'reason' AS reason
    FROM jsonb_array_elements(r.gates) WITH ORDINALITY AS x (d, o)) g ON true
ORDER BY g.position;
-- An apply stops at the first.
SELECT r.run_status, r.reason, jsonb_path_query_array(r.gates, '$[*].gate') AS gates, jsonb_typeof(r.request) AS request
FROM fn_dot_run('A', 'apply') r;

-- A plan is refused only where there is nothing to show; it still tells all that can be told.
UPDATE dot_tools SET status = 'retired' WHERE code = 'A';
SELECT r.run_status, r.reason, jsonb_path_query_array(r.gates, '$[*].reason') AS reasons, jsonb_typeof(r.request) AS request
FROM fn_dot_run('A') r;
UPDATE dot_tools SET status = 'active', execution_engine = 'mail' WHERE code = 'A';
SELECT r.run_status, r.reason, jsonb_path_query_array(r.gates, '$[*].reason') AS reasons, jsonb_typeof(r.request) AS request
FROM fn_dot_run('A') r;

-- A plan is always made anew, also for the same key.
SELECT count(DISTINCT r.run_id) AS plans
FROM generate_series(1, 3) n, LATERAL fn_dot_run('B', 'plan', :'process', '{}', 'same' || left(n::text, 0)) r;

DROP FUNCTION print;
DROP EXTENSION dot_wrapper;
