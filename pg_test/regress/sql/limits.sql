-- Limits: how many runs may wait, and circuit breakers as SQL shows and sets them. The worker is off in these tests.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
\pset null '(null)'

-- A tool's own limit. A refusal is a row, and asks neither toggle nor guard.
INSERT INTO dot_wrapper.policy (scope, name, lease, max_queued) VALUES ('tool', 'A', 'none', 2);
SELECT n, run_status, reason, message FROM generate_series(1, 3) n, LATERAL fn_dot_run('A' || left(n::text, 0), 'apply') ORDER BY n;
SELECT d ->> 'gate' AS gate, d ->> 'verdict' AS verdict, d ->> 'reason' AS reason,
       CASE d ->> 'gate' WHEN 'queue' THEN d -> 'inputs' END AS inputs
FROM fn_dot_run('A', 'verify') r, jsonb_array_elements(r.gates) d;
SELECT reason, count(*) FROM dot_run WHERE run_status = 'refused' GROUP BY 1;
-- A plan tells, and is made; another tool is not concerned.
SELECT r.run_status, d ->> 'verdict' AS verdict, d ->> 'reason' AS reason
FROM fn_dot_run('A') r, jsonb_array_elements(r.gates) d WHERE d ->> 'gate' = 'queue';
SELECT run_status FROM fn_dot_run('B', 'apply');
-- Room comes with runs that go, and with a rollback.
SELECT c.run_status FROM (SELECT run_id FROM dot_run WHERE code = 'A' AND run_status = 'queued' LIMIT 1) r, fn_dot_cancel(r.run_id, 'room') c;
-- That it is full is believed for half a second at most.
SELECT pg_sleep(0.6) IS NOT NULL AS rested;
BEGIN;
SELECT run_status FROM fn_dot_run('A', 'apply');
SELECT run_status FROM fn_dot_run('A', 'apply');
ROLLBACK;
-- That it is full is believed for half a second at most.
SELECT pg_sleep(0.6) IS NOT NULL AS rested;
SELECT run_status FROM fn_dot_run('A', 'apply');

-- The database's limit; 0 is none. A role with little in a full queue is let in: a sixteenth, at least one.
SET dot_wrapper.max_queued = 4;
SELECT run_status FROM fn_dot_run('B', 'apply');
SELECT run_status, reason, message FROM fn_dot_run('B', 'apply');
CREATE ROLE regress_small;
GRANT EXECUTE ON FUNCTION fn_dot_run TO regress_small;
SET ROLE regress_small;
SELECT run_status, reason FROM fn_dot_run('B', 'apply');
SELECT run_status, reason FROM fn_dot_run('B', 'apply');
SET dot_wrapper.max_queued = 5;
RESET ROLE;
-- That it is full is believed for half a second at most.
SELECT pg_sleep(0.6) IS NOT NULL AS rested;
SET dot_wrapper.max_queued = 0;
SELECT run_status FROM fn_dot_run('B', 'apply');
RESET dot_wrapper.max_queued;

-- Breakers: one row per endpoint.
SELECT endpoint, state, failures, open_until, paused_until, forced, says, note, ordered_by FROM dot_breaker;
SELECT endpoint, state, forced, says, note, ordered_by, changed_at IS NOT NULL AS changed
FROM fn_dot_breaker('agent', 'open', '  the agent is being moved ');
SELECT run_status, d ->> 'verdict' AS verdict, d ->> 'reason' AS reason, d ->> 'message' AS message, d -> 'inputs' AS inputs
FROM fn_dot_run('B', 'apply') r, jsonb_array_elements(r.gates) d WHERE d ->> 'gate' = 'breaker';
SELECT run_status, d ->> 'reason' AS reason FROM fn_dot_run('B') r, jsonb_array_elements(r.gates) d WHERE d ->> 'gate' = 'breaker';
SELECT check_name, verdict, detail, advice FROM fn_dot_doctor() WHERE check_name = 'breaker';
SELECT state, forced, says FROM fn_dot_breaker('agent', 'auto', 'moved');
SELECT state, forced, says FROM fn_dot_breaker('agent', 'closed', 'it works');
SELECT number, endpoint, state, note, ordered_by FROM dot_wrapper.breaker_order ORDER BY number;
-- What the worker found out.
INSERT INTO dot_wrapper.breaker (endpoint, state, failures, open_until, forced, followed, reason)
VALUES ('agent', 'open', 5, '2999-01-01 00:00:00+00', false, 3, 'http_503: busy');
SELECT state, failures, open_until AT TIME ZONE 'UTC' AS until, says FROM dot_breaker;
SELECT d ->> 'message' AS message, d -> 'inputs' ->> 'until' AS until FROM fn_dot_run('B') r, jsonb_array_elements(r.gates) d WHERE d ->> 'gate' = 'breaker';
UPDATE dot_wrapper.breaker SET open_until = '2020-01-01';
SELECT state, says FROM dot_breaker;
UPDATE dot_wrapper.breaker SET state = 'closed', open_until = NULL, failures = 1, paused_until = '2999-01-01', reason = 'the agent asked for a pause of 9 s';
SELECT state, says FROM dot_breaker;
SELECT d ->> 'reason' AS reason FROM fn_dot_run('B') r, jsonb_array_elements(r.gates) d WHERE d ->> 'gate' = 'breaker';
SELECT state, failures, says FROM fn_dot_breaker('agent', 'closed', 'never mind');

-- Misuse has words for it, and leaves nothing.
SELECT fn_dot_breaker(NULL, 'open', 'x');
SELECT fn_dot_breaker('agent', NULL, 'x');
SELECT fn_dot_breaker('agent', 'open', NULL);
SELECT fn_dot_breaker('agent', 'ajar', 'x');
SELECT fn_dot_breaker('agent', 'open', ' ');
SELECT fn_dot_breaker('agent', 'open', E'two\nlines');
SELECT fn_dot_breaker('nobody', 'open', 'x');
SET ROLE regress_small;
SELECT fn_dot_breaker('agent', 'open', 'x');
SELECT * FROM dot_breaker;
RESET ROLE;
GRANT EXECUTE ON FUNCTION fn_dot_breaker TO regress_small;
GRANT SELECT ON dot_breaker TO regress_small;
SET ROLE regress_small;
SELECT state, ordered_by FROM fn_dot_breaker('agent', 'open', 'an operator');
SELECT state, ordered_by FROM dot_breaker;
RESET ROLE;
SELECT count(*) AS orders FROM dot_wrapper.breaker_order;

DROP EXTENSION dot_wrapper;
DROP ROLE regress_small;
