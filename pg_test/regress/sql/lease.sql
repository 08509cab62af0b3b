-- Leases: one live run per resource. Which resource, says the tool's policy.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
\pset null '(null)'

-- By default the tool itself. The row, the request, the grant and the lease agree.
SELECT run_id AS first, run_status, lease_key, fencing_token AS token FROM fn_dot_run('A', 'apply') \gset
\echo :run_status :lease_key
SELECT g.lease_key, g.run_id = :'first' AS is_first, g.fencing_token = :token AS same_token, g.ttl_s,
       l.holder = 'dot_run:' || :'first' AS is_holder,
       round(extract(epoch FROM l.expires_at - l.acquired_at)) AS seconds,
       (SELECT (request -> 'body' ->> 'fencing_token')::bigint = :token FROM dot_run WHERE run_id = :'first') AS token_sent
FROM dot_wrapper.lease_grant g JOIN dot_iu_runtime_lease l USING (lease_key);
-- A second run is refused, whoever asks and whatever the mode, and takes nothing.
SELECT run_status, reason, message, lease_key, fencing_token FROM fn_dot_run('A', 'apply');
SELECT run_status, reason, message, lease_key, fencing_token FROM fn_dot_run('A', 'verify');
SELECT r.run_status, r.lease_key, d ->> 'verdict' AS verdict, d ->> 'reason' AS reason, d ->> 'message' AS message
FROM fn_dot_run('A') r, jsonb_array_elements(r.gates) d WHERE d ->> 'gate' = 'lease';
SELECT run_id = :'first' AS is_first, fencing_token = :token AS same_token FROM dot_wrapper.lease_grant;
-- Let go, it is there for the next, whose token is larger.
SELECT fn_dot_iu_runtime_lease_release('tool:A', 'somebody else') AS released;
SELECT fn_dot_iu_runtime_lease_release('tool:A', 'dot_run:' || :'first') AS released;
SELECT run_status, fencing_token > :token AS larger FROM fn_dot_run('A', 'verify');
-- Run out, it is there as well.
UPDATE dot_iu_runtime_lease SET expires_at = now() - interval '1 s';
SELECT run_id AS third, run_status, fencing_token > :token AS larger FROM fn_dot_run('A', 'apply') \gset
\echo :run_status :larger
SELECT run_id = :'third' AS is_third FROM dot_wrapper.lease_grant;
DELETE FROM dot_iu_runtime_lease;

-- Rolled back, it was never held: a transaction, and a savepoint.
BEGIN;
SELECT run_status FROM fn_dot_run('A', 'apply');
SELECT run_status, reason FROM fn_dot_run('A', 'apply');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT run_status FROM fn_dot_run('A', 'apply');
ROLLBACK TO s;
SELECT run_status FROM fn_dot_run('A', 'apply');
ROLLBACK;
SELECT count(*) AS leases FROM dot_iu_runtime_lease;

-- None: any number at a time.
SELECT n, run_status, lease_key, fencing_token, d ->> 'message' AS lease
FROM generate_series(1, 2) n, LATERAL fn_dot_run('B' || left(n::text, 0), 'apply') r, jsonb_array_elements(r.gates) d WHERE d ->> 'gate' = 'lease' ORDER BY n;

-- Widened: tools that share a resource exclude each other.
INSERT INTO dot_wrapper.policy (scope, name, lease) VALUES ('tool', 'A', 'server:graph');
UPDATE dot_wrapper.policy SET lease = 'server:graph', lease_ttl_s = 1200 WHERE scope = 'tool' AND name = 'B';
BEGIN;
SELECT run_status, lease_key FROM fn_dot_run('B', 'apply');
SELECT round(extract(epoch FROM expires_at - acquired_at)) AS seconds FROM dot_iu_runtime_lease;
SELECT run_status, lease_key, reason FROM fn_dot_run('A', 'apply');
ROLLBACK;

-- Narrowed by arguments: other values do not stand in each other's way.
UPDATE dot_wrapper.policy SET lease = '{code}:{args.site}' WHERE scope = 'tool' AND name = 'A';
BEGIN;
SELECT run_status, lease_key FROM fn_dot_run('A', 'apply', NULL, '{"site": "north"}');
SELECT run_status, lease_key FROM fn_dot_run('A', 'apply', NULL, '{"site": "south"}');
SELECT run_status, lease_key, reason FROM fn_dot_run('A', 'apply', NULL, '{"site": "north", "deep": true}');
SELECT run_status, lease_key FROM fn_dot_run('A', 'apply', NULL, '{"site": {"id": 7, "a": [1, 2]}}');
SELECT run_status, lease_key FROM fn_dot_run('A', 'apply', NULL, '{"site": 7}');
SELECT run_status, lease_key, reason FROM fn_dot_run('A', 'apply', NULL, '{"site": "7"}');
SELECT run_status, lease_key FROM fn_dot_run('A', 'apply');
SELECT run_status, lease_key, reason FROM fn_dot_run('A', 'apply', NULL, '{"site": null}');
-- A key too long to be kept is told apart by its digest.
SELECT run_status, length(lease_key) AS length, lease_key ~ '^[0-9a-f]{64}$' AS is_digest
FROM fn_dot_run('A', 'apply', NULL, jsonb_build_object('site', repeat('x', 300)));
SELECT run_status, reason FROM fn_dot_run('A', 'apply', NULL, jsonb_build_object('site', repeat('x', 300)));
SELECT run_status FROM fn_dot_run('A', 'apply', NULL, jsonb_build_object('site', repeat('x', 301)));
ROLLBACK;
-- Text in a template is text.
UPDATE dot_wrapper.policy SET lease = 'a {b} {args.} {code' WHERE scope = 'tool' AND name = 'A';
SELECT lease_key FROM fn_dot_run('A');

-- A lease that another layer took is respected, and left alone.
UPDATE dot_wrapper.policy SET lease = NULL WHERE scope = 'tool' AND name = 'A';
SELECT fn_dot_iu_runtime_lease_acquire('tool:A', 'iu_core', '1 hour') > now() AS taken;
SELECT run_status, reason FROM fn_dot_run('A', 'apply');
SELECT fn_dot_iu_runtime_lease_acquire('tool:A', 'iu_core', '2 hours') > now() + interval '90 min' AS renewed,
       fn_dot_iu_runtime_lease_acquire('tool:A', 'another', '1 hour') AS refused;
SELECT lease_key, holder FROM dot_iu_runtime_lease ORDER BY 1;

DROP EXTENSION dot_wrapper;
