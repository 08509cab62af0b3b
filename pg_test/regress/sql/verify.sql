-- fn_dot_verify where no worker seals: what the ledger alone tells, who may ask, and what is misuse.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql
CREATE ROLE regress_dot_ann;
CREATE ROLE regress_dot_bob;
CREATE ROLE regress_dot_audit IN ROLE pg_read_all_data;
GRANT EXECUTE ON FUNCTION fn_dot_run, fn_dot_verify, fn_dot_seal_head TO PUBLIC;
\set process '''01900000-0000-7000-8000-000000000001'''

-- Nothing is in order, and has no newest seal.
SELECT * FROM fn_dot_verify();
SELECT * FROM fn_dot_seal_head();

SET ROLE regress_dot_ann;
SELECT run_status FROM fn_dot_run('A', 'apply', :process, '{"of": "ann", "n": 1e2}');
SELECT run_status FROM fn_dot_run('NONE', 'apply', :process, '{"of": "ann"}');
SET ROLE regress_dot_bob;
SELECT run_status FROM fn_dot_run('B', 'plan', :process, '{"of": "bob"}');
RESET ROLE;
-- Not sealed yet is no finding. It is one after ten minutes.
SELECT * FROM fn_dot_verify();
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE dot_wrapper.dot_run_event SET at = at - interval '11 minutes';
SELECT kind, verdict, regexp_replace(detail, '\d+ s;', 'N s;') AS detail FROM fn_dot_verify();
ROLLBACK;

-- Everybody verifies what he may see, and the whole only who may read it all.
SET ROLE regress_dot_ann;
SELECT * FROM fn_dot_verify(:process);
SELECT * FROM fn_dot_verify();
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM fn_dot_seal_head();
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM fn_dot_verify('01900000-0000-7000-8000-00000000dead');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SET ROLE regress_dot_audit;
SELECT * FROM fn_dot_verify(:process);
SELECT * FROM fn_dot_verify();
SELECT * FROM fn_dot_seal_head();
RESET ROLE;

-- Anchors: both parts or none, for the whole ledger only.
SELECT * FROM fn_dot_verify(anchor_seal => 1);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM fn_dot_verify(anchor_hash => '\x00');
SELECT * FROM fn_dot_verify(NULL, 1, '\x00');
SELECT * FROM fn_dot_verify(NULL, 0, sha256(''));
SELECT * FROM fn_dot_verify(:process, 1, sha256(''));
SELECT * FROM fn_dot_verify(NULL, 1, sha256(''));

-- Without a seal it is marks that tell where a row came from, and the rows that have to fit each other.
\set look 'SELECT f.kind, r.code, f.verdict, f.detail FROM fn_dot_verify() f LEFT JOIN dot_run r USING (run_id) ORDER BY f.kind COLLATE "C", f.item, f.verdict;'
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE dot_wrapper.dot_run_event SET detail = '{"a": 1}' WHERE event_id = (SELECT min(event_id) FROM dot_wrapper.dot_run_event);
:look
ROLLBACK;
BEGIN;
INSERT INTO dot_wrapper.dot_run_event (run_id, event, mark)
SELECT run_id, 'late_answer', substring(sha256('x') FROM 1 FOR 24) FROM dot_wrapper.dot_run WHERE code = 'A';
:look
ROLLBACK;
BEGIN;
INSERT INTO dot_wrapper.dot_run_event (run_id, event, to_status, mark)
SELECT run_id, event, to_status, mark FROM dot_wrapper.dot_run_event WHERE to_status = 'queued';
SELECT f.kind, r.code, f.verdict, regexp_replace(f.detail, 'event \d+', 'event N') AS detail
FROM fn_dot_verify() f LEFT JOIN dot_run r USING (run_id) ORDER BY f.kind COLLATE "C", f.item, f.detail;
ROLLBACK;
BEGIN;
INSERT INTO dot_wrapper.dot_run_attempt (run_id, attempt, deadline, worker)
SELECT run_id, 1, now(), gen_random_uuid() FROM dot_wrapper.dot_run WHERE code = 'A';
:look
ROLLBACK;
BEGIN;
UPDATE dot_wrapper.dot_run SET run_status = 'cancelled', reason = 'r', message = 'm', finished_at = now() WHERE run_status = 'queued';
:look
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = replica;
DELETE FROM dot_wrapper.dot_run_event WHERE to_status = 'queued';
:look
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = replica;
DELETE FROM dot_wrapper.dot_run WHERE code = 'B';
SELECT f.kind, f.verdict, f.detail FROM fn_dot_verify() f ORDER BY f.kind COLLATE "C", f.item, f.verdict;
ROLLBACK;

-- The ledger is not for those who may write every table.
GRANT pg_write_all_data TO regress_dot_bob;
GRANT USAGE ON SCHEMA dot_wrapper TO regress_dot_bob;
SET ROLE regress_dot_bob;
UPDATE dot_wrapper.dot_run SET message = 'x';
\echo SQLSTATE :LAST_ERROR_SQLSTATE
INSERT INTO dot_wrapper.seal_head (seal_id, hash, low, high, since, foreign_to, key_id, mark) VALUES (1, '', 0, 0, 0, 0, '', '');
RESET ROLE;

DROP EXTENSION dot_wrapper;
DROP ROLE regress_dot_ann, regress_dot_bob, regress_dot_audit;
