-- What can be written into dot_wrapper.job_source, the shipped job table, and the trigger that wakes the worker.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql

CREATE ROLE regress_dot_jobs;
-- All defaults but the role.
INSERT INTO dot_wrapper.job_source (run_as) VALUES ('regress_dot_jobs');
SELECT only_row, relation, families, id_column, family_column, payload_column, status_column, run_id_column,
       idempotency_key_column, actor_column, result_column, finished_at_column, status_words, batch
FROM dot_wrapper.job_source \gx
INSERT INTO dot_wrapper.job_source (run_as) VALUES ('regress_dot_jobs');
INSERT INTO dot_wrapper.job_source (only_row, run_as) VALUES (false, 'regress_dot_jobs');
UPDATE dot_wrapper.job_source SET run_as = NULL;
UPDATE dot_wrapper.job_source SET relation = 'job_queue';
UPDATE dot_wrapper.job_source SET relation = 'a.b.c';
UPDATE dot_wrapper.job_source SET relation = 'a b.c';
UPDATE dot_wrapper.job_source SET families = '{}';
UPDATE dot_wrapper.job_source SET families = '{job:dot,NULL}';
UPDATE dot_wrapper.job_source SET status_words = '[]';
UPDATE dot_wrapper.job_source SET status_words = '{"done": "x"}';
UPDATE dot_wrapper.job_source SET status_words = '{"failed": 1}';
UPDATE dot_wrapper.job_source SET batch = 0;
UPDATE dot_wrapper.job_source SET status_words = '{"succeeded": "done"}', run_id_column = NULL, result_column = NULL,
    idempotency_key_column = NULL, actor_column = NULL, finished_at_column = NULL, relation = '"My Schema"."My Jobs"';

-- The doctor, behind the toggle and with it.
SELECT verdict, detail FROM fn_dot_doctor() WHERE check_name = 'jobs';
UPDATE dot_wrapper.job_source SET relation = 'public.job_queue';
SELECT verdict, advice FROM fn_dot_doctor() WHERE check_name = 'jobs';
UPDATE dot_config SET value = 'true' WHERE key = 'queue.worker.enabled';
SELECT verdict, advice FROM fn_dot_doctor() WHERE check_name = 'jobs';
DELETE FROM dot_wrapper.job_source;
SELECT verdict, detail, advice FROM fn_dot_doctor() WHERE check_name = 'jobs';

-- The shipped table has the trigger; others get it by hand, and only where it does no harm.
SELECT tgname, tgrelid::regclass, pg_get_triggerdef(oid) LIKE '%AFTER%FOR EACH STATEMENT%' AS after_statement
FROM pg_trigger WHERE tgfoid = 'dot_wrapper.wake_on_change()'::regprocedure ORDER BY 1;
SELECT dot_wrapper.wake_on_change();
CREATE TABLE mine (x int);
CREATE TRIGGER t AFTER INSERT ON mine FOR EACH STATEMENT EXECUTE FUNCTION dot_wrapper.wake_on_change();
INSERT INTO mine VALUES (1);
CREATE TRIGGER b BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION dot_wrapper.wake_on_change();
INSERT INTO mine VALUES (2);
SELECT * FROM mine;
DROP TABLE mine;
INSERT INTO job_queue (family, payload) VALUES ('job:cut', '{}');
SELECT id, family, payload, status, run_id, result FROM job_queue;
DROP EXTENSION dot_wrapper;
DROP ROLE regress_dot_jobs;
