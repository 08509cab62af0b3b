-- The schema refuses rows that cannot be: for every named constraint a row that violates it and nothing else.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql

-- A good row of each table, and what to change in it.
CREATE TEMP TABLE good (tab regclass, r jsonb);
INSERT INTO good VALUES
    ('dot_wrapper.dot_run', '{"run_id": "00000000-0000-7000-8000-000000000001", "process_run_id": "00000000-0000-7000-8000-000000000002",
        "code": "A", "mode": "apply", "run_status": "queued", "attempts": 0, "requested_by": "x", "requested_by_oid": 10,
        "requested_at": "2026-01-01 00:00:00Z", "idempotency_key": "", "args": {}, "engine": "agent_api", "fingerprint": "f",
        "request": {}, "gates": [], "lease_key": "tool:A", "fencing_token": 1, "start_by": "2026-01-02 00:00:00Z",
        "finish_by": "2026-01-03 00:00:00Z", "admitted": true, "source": "call"}'),
    ('dot_wrapper.dot_run_attempt', '{"run_id": "00000000-0000-7000-8000-000000000001", "attempt": 1, "intent_at": "2026-01-01 00:00:00Z",
        "deadline": "2026-01-01 00:01:00Z", "worker": "00000000-0000-7000-8000-000000000003"}'),
    ('dot_wrapper.dot_run_event', '{"event_id": 1000000, "run_id": "00000000-0000-7000-8000-000000000001", "event": "running",
        "from_status": "queued", "to_status": "running", "at": "2026-01-01 00:00:00Z", "detail": {}}'),
    ('dot_wrapper.dot_queue', '{"run_id": "00000000-0000-7000-8000-000000000001", "seq": 1000000, "state": "queued",
        "available_at": "2026-01-01 00:00:00Z", "permit": "\\x00", "lane": 1, "code": "A", "endpoint": "e", "past": "none",
        "cancel_requested": false, "crashes": 0, "lease_wait": false, "followed": false, "requested_in": "1"}'),
    ('dot_wrapper.lease_grant', '{"lease_key": "tool:A", "run_id": "00000000-0000-7000-8000-000000000001", "fencing_token": 1, "ttl_s": 300,
        "expires_at": "2026-01-01 00:00:00Z", "renew_at": "2026-01-01 00:00:00Z"}'),
    ('dot_wrapper.usage_debt', '{"code": "A", "executions": 1, "last_executed": "2026-01-01 00:00:00Z"}'),
    ('dot_wrapper.endpoint', '{"name": "e", "base_url": "https://agent.invalid", "path": "/v1", "auth_header": "Authorization", "auth_scheme": "Bearer",
        "rate_burst": 1, "breaker_failures": 5, "breaker_pause_s": 30}'),
    ('dot_wrapper.egress_rule', '{"id": 1000000, "scheme": "https", "host": "agent.invalid", "port": 443, "path_prefix": "/", "cidrs": []}'),
    ('dot_wrapper.policy', '{"scope": "tool", "name": "T"}'),
    ('dot_wrapper.port', '{"port": "guard", "function": "f()", "origin": "bound"}'),
    ('dot_wrapper.dot_seal', jsonb_build_object('seal_id', 1, 'sealed_at', '2026-01-01 00:00:00Z', 'process_run_id', gen_random_uuid(),
        'run_id', gen_random_uuid(), 'event_ids', '{1}', 'attempts', '{}', 'digests', '\x' || repeat('00', 64), 'origins', 'm',
        'prev', '\x' || repeat('00', 32), 'hash', '\x' || repeat('00', 32))),
    ('dot_wrapper.seal_head', '{"only_row": true, "seal_id": 1, "hash": "\\x00", "low": 0, "high": 0, "since": 0, "foreign_to": 0,
        "key_id": "\\x00", "mark": "\\x00"}'),
    ('dot_wrapper.breaker', '{"endpoint": "e", "state": "closed", "failures": 0, "forced": false, "followed": 0, "reason": "",
        "changed_at": "2026-01-01 00:00:00Z"}'),
    ('dot_wrapper.breaker_order', '{"number": 1000000, "endpoint": "e", "state": "open", "note": "n", "ordered_by": "x",
        "ordered_at": "2026-01-01 00:00:00Z"}'),
    ('dot_wrapper.worker_life', '{"only_row": true, "worker": "00000000-0000-7000-8000-000000000003", "started_at": "2026-01-01 00:00:00Z"}'),
    ('dot_wrapper.schedule', '{"code": "A", "schedule": "0 * * * *", "mode": "apply", "args": {}, "overlap": "skip", "window_s": 60}'),
    ('dot_wrapper.trigger_binding', '{"code": "A", "relation": "public.orders", "events": ["update"], "per": "statement", "coalesce": true,
        "mode": "apply", "args": {}, "run_as": "postgres"}'),
    ('dot_wrapper.job_source', '{"only_row": true, "run_as": "x", "relation": "public.job_queue", "families": ["job:dot"], "id_column": "id",
        "family_column": "family", "payload_column": "payload", "status_column": "status", "status_words": {}, "batch": 50}'),
    ('dot_wrapper.job_link', '{"relation": "public.job_queue", "job_id": "1", "run_id": "00000000-0000-7000-8000-000000000001", "changed": false,
        "due": "-infinity"}'),
    ('dot_wrapper.instance', '{"only_row": true, "system_identifier": 1, "database_oid": 1,
        "permit_key": "\\x0000000000000000000000000000000000000000000000000000000000000000"}');

CREATE TEMP TABLE bad (tab regclass, change jsonb, refused_by name);
INSERT INTO bad VALUES
    ('dot_wrapper.dot_run', '{"mode": "dance", "run_status": "queued"}', 'run_mode_known'),
    ('dot_wrapper.dot_run', '{"run_status": "paused", "admitted": true, "finished_at": "2026-01-01 00:00:01Z", "reason": "r", "message": "m"}', 'run_status_known'),
    ('dot_wrapper.dot_run', '{"mode": "plan"}', 'run_plan_is_never_sent'),
    ('dot_wrapper.dot_run', '{"run_status": "planned", "finished_at": "2026-01-01 00:00:01Z", "admitted": false}', 'run_plan_is_never_sent'),
    ('dot_wrapper.dot_run', '{"finished_at": "2026-01-01 00:00:01Z"}', 'run_finished_iff_terminal'),
    ('dot_wrapper.dot_run', '{"run_status": "cancelled", "reason": "r", "message": "m"}', 'run_finished_iff_terminal'),
    ('dot_wrapper.dot_run', '{"run_status": "running"}', 'run_sent_has_attempt'),
    ('dot_wrapper.dot_run', '{"attempts": 1}', 'run_started_iff_attempted'),
    ('dot_wrapper.dot_run', '{"started_at": "2026-01-01 00:00:01Z"}', 'run_started_iff_attempted'),
    ('dot_wrapper.dot_run', '{"mode": "plan", "run_status": "planned", "admitted": false, "attempts": 1, "started_at": "2026-01-01 00:00:01Z",
        "finished_at": "2026-01-01 00:00:01Z"}', 'run_plan_has_no_attempt'),
    ('dot_wrapper.dot_run', '{"admitted": false}', 'run_admitted_holds_key'),
    ('dot_wrapper.dot_run', '{"run_status": "refused", "finished_at": "2026-01-01 00:00:01Z", "reason": "r", "message": "m"}', 'run_admitted_holds_key'),
    ('dot_wrapper.dot_run', '{"request": null}', 'run_request_is_kept'),
    ('dot_wrapper.dot_run', '{"fingerprint": null}', 'run_request_is_kept'),
    ('dot_wrapper.dot_run', '{"engine": null}', 'run_request_is_kept'),
    ('dot_wrapper.dot_run', '{"run_status": "expired", "finished_at": "2026-01-01 00:00:01Z", "message": "m"}', 'run_refusal_is_explained'),
    ('dot_wrapper.dot_run', '{"run_status": "refused", "admitted": false, "finished_at": "2026-01-01 00:00:01Z", "reason": "r"}', 'run_refusal_is_explained'),
    ('dot_wrapper.dot_run', '{"run_status": "refused", "admitted": false, "finished_at": "2026-01-01 00:00:01Z", "reason": "r", "message": "m",
        "lease_key": null}', 'run_token_with_lease'),
    ('dot_wrapper.dot_run', '{"fencing_token": null, "attempts": 1, "started_at": "2026-01-01 00:00:01Z"}', 'run_lease_has_token'),
    ('dot_wrapper.dot_run', '{"source": "rumour"}', 'run_source_known'),
    ('dot_wrapper.dot_run', jsonb_build_object('actor', repeat('x', 201)), 'run_source_bounded'),
    ('dot_wrapper.dot_run', jsonb_build_object('source_ref', repeat('x', 201)), 'run_source_bounded'),
    ('dot_wrapper.dot_run', '{"start_by": null}', 'run_start_by_iff_admitted'),
    ('dot_wrapper.dot_run', '{"finish_by": null}', 'run_start_by_iff_admitted'),
    ('dot_wrapper.dot_run', '{"result": {}}', 'run_result_only_after_answer'),
    ('dot_wrapper.dot_run', '{"observations": []}', 'run_result_only_after_answer'),
    ('dot_wrapper.dot_run', '{"args": []}', 'run_args_object'),
    ('dot_wrapper.dot_run', '{"gates": {}}', 'run_gates_array'),
    ('dot_wrapper.dot_run', '{"attempts": -1, "started_at": "2026-01-01 00:00:01Z"}', 'run_attempts_counted'),
    ('dot_wrapper.dot_run', '{"code": ""}', 'run_code_bounded'),
    ('dot_wrapper.dot_run', jsonb_build_object('code', repeat('x', 201)), 'run_code_bounded'),
    ('dot_wrapper.dot_run', jsonb_build_object('idempotency_key', repeat('x', 256)), 'run_key_bounded'),
    ('dot_wrapper.endpoint', '{"name": "(script)"}', 'endpoint_name_begins_with_no_parenthesis'),
    ('dot_wrapper.policy', '{"dry_run_arg": ""}', 'policy_dry_run_arg_has_1_to_200_characters'),
    ('dot_wrapper.policy', '{"max_cpu_s": 0}', 'policy_max_cpu_s_between_1_and_86400'),
    ('dot_wrapper.policy', '{"max_file_mb": 0}', 'policy_max_file_mb_between_1_and_1048576'),
    ('dot_wrapper.policy', '{"max_memory_mb": 15}', 'policy_max_memory_mb_between_16_and_1048576'),
    ('dot_wrapper.policy', '{"script_args": [null]}', 'policy_script_args_are_texts'),
    ('dot_wrapper.schedule', '{"code": ""}', 'schedule_code_has_1_to_200_characters'),
    ('dot_wrapper.schedule', '{"schedule": ""}', 'schedule_has_1_to_200_characters'),
    ('dot_wrapper.schedule', '{"mode": "plan"}', 'schedule_mode_is_verify_or_apply'),
    ('dot_wrapper.schedule', '{"args": []}', 'schedule_args_are_an_object'),
    ('dot_wrapper.schedule', '{"overlap": "wait"}', 'schedule_overlap_is_skip_queue_or_allow'),
    ('dot_wrapper.schedule', '{"window_s": 0}', 'schedule_window_s_between_1_and_86400'),
    ('dot_wrapper.trigger_binding', '{"code": ""}', 'binding_code_has_1_to_200_characters'),
    ('dot_wrapper.trigger_binding', '{"events": []}', 'binding_events_are_insert_update_delete'),
    ('dot_wrapper.trigger_binding', '{"events": ["truncate"]}', 'binding_events_are_insert_update_delete'),
    ('dot_wrapper.trigger_binding', '{"columns": ["a"], "events": ["insert"]}', 'binding_columns_go_with_update'),
    ('dot_wrapper.trigger_binding', '{"per": "page"}', 'binding_per_is_row_or_statement'),
    ('dot_wrapper.trigger_binding', '{"mode": "plan"}', 'binding_mode_is_verify_or_apply'),
    ('dot_wrapper.trigger_binding', '{"args": []}', 'binding_args_are_an_object'),
    ('dot_wrapper.job_source', '{"only_row": false}', 'job_source_single'),
    ('dot_wrapper.job_source', '{"relation": "job_queue"}', 'job_source_relation_is_schema_dot_table'),
    ('dot_wrapper.job_source', '{"families": []}', 'job_source_families_are_named'),
    ('dot_wrapper.job_source', '{"families": [null]}', 'job_source_families_are_named'),
    ('dot_wrapper.job_source', '{"status_words": []}', 'job_source_status_words_are_known'),
    ('dot_wrapper.job_source', '{"status_words": {"lost": "x"}}', 'job_source_status_words_are_known'),
    ('dot_wrapper.job_source', '{"status_words": {"queued": 1}}', 'job_source_status_words_are_known'),
    ('dot_wrapper.job_source', '{"batch": 0}', 'job_source_batch_between_1_and_1000'),
    ('dot_wrapper.job_source', '{"batch": 1001}', 'job_source_batch_between_1_and_1000'),
    ('dot_wrapper.job_link', '{"run_id": null}', 'job_link_run_or_trouble'),
    ('dot_wrapper.dot_run_attempt', '{"attempt": 0}', 'attempt_counted'),
    ('dot_wrapper.dot_run_event', '{"from_status": "succeeded"}', 'event_status_known'),
    ('dot_wrapper.dot_run_event', '{"to_status": "paused"}', 'event_status_known'),
    ('dot_wrapper.dot_run_event', '{"detail": 1}', 'event_detail_object'),
    ('dot_wrapper.dot_queue', '{"state": "succeeded"}', 'queue_state_known'),
    ('dot_wrapper.dot_queue', '{"state": "running"}', 'queue_worker_iff_running'),
    ('dot_wrapper.dot_queue', '{"worker": "00000000-0000-7000-8000-000000000003"}', 'queue_worker_iff_running'),
    ('dot_wrapper.dot_queue', '{"past": "future"}', 'queue_past_known'),
    ('dot_wrapper.dot_run_event', '{"mark": "\\x00"}', 'event_mark_long'),
    ('dot_wrapper.lease_grant', '{"ttl_s": 9}', 'grant_ttl_bounded'),
    ('dot_wrapper.lease_grant', '{"ttl_s": 86401}', 'grant_ttl_bounded'),
    ('dot_wrapper.usage_debt', '{"executions": 0}', 'debt_positive'),
    ('dot_wrapper.endpoint', '{"base_url": "ftp://agent.invalid"}', 'endpoint_base_url_is_http_or_https_host_and_path_only'),
    ('dot_wrapper.endpoint', '{"base_url": "https://user:secret@agent.invalid"}', 'endpoint_base_url_is_http_or_https_host_and_path_only'),
    ('dot_wrapper.endpoint', '{"base_url": "https://agent.invalid/?token=x"}', 'endpoint_base_url_is_http_or_https_host_and_path_only'),
    ('dot_wrapper.endpoint', '{"base_url": "https://agent.invalid/#x"}', 'endpoint_base_url_is_http_or_https_host_and_path_only'),
    ('dot_wrapper.endpoint', '{"base_url": "https://"}', 'endpoint_base_url_is_http_or_https_host_and_path_only'),
    ('dot_wrapper.endpoint', '{"path": "v1"}', 'endpoint_path_begins_with_slash_and_has_no_query'),
    ('dot_wrapper.endpoint', '{"path": "/v1?x"}', 'endpoint_path_begins_with_slash_and_has_no_query'),
    ('dot_wrapper.endpoint', '{"path": "/v1\\x"}', 'endpoint_path_begins_with_slash_and_has_no_query'),
    ('dot_wrapper.endpoint', '{"auth_header": "X-A: b"}', 'endpoint_auth_header_is_a_header_name'),
    ('dot_wrapper.endpoint', '{"auth_header": ""}', 'endpoint_auth_header_is_a_header_name'),
    ('dot_wrapper.endpoint', '{"auth_scheme": "Bearer x"}', 'endpoint_auth_scheme_is_one_word'),
    ('dot_wrapper.endpoint', '{"auth_secret": "../etc/passwd"}', 'endpoint_auth_secret_is_a_name_not_the_secret'),
    ('dot_wrapper.endpoint', '{"auth_secret": "a..b"}', 'endpoint_auth_secret_is_a_name_not_the_secret'),
    ('dot_wrapper.endpoint', '{"auth_secret": ""}', 'endpoint_auth_secret_is_a_name_not_the_secret'),
    ('dot_wrapper.endpoint', jsonb_build_object('auth_secret', repeat('x', 65)), 'endpoint_auth_secret_is_a_name_not_the_secret'),
    ('dot_wrapper.endpoint', '{"status_path": "/v1/runs"}', 'endpoint_status_path_begins_with_slash_and_has_run_id'),
    ('dot_wrapper.endpoint', '{"status_path": "v1/runs/{run_id}"}', 'endpoint_status_path_begins_with_slash_and_has_run_id'),
    ('dot_wrapper.endpoint', '{"max_in_flight": 0}', 'endpoint_max_in_flight_between_1_and_4096'),
    ('dot_wrapper.endpoint', '{"rate_per_s": 0}', 'endpoint_rate_per_s_above_0_up_to_100000'),
    ('dot_wrapper.endpoint', '{"rate_burst": 0}', 'endpoint_rate_burst_between_1_and_100000'),
    ('dot_wrapper.endpoint', '{"breaker_failures": 1001}', 'endpoint_breaker_failures_between_0_and_1000'),
    ('dot_wrapper.endpoint', '{"breaker_pause_s": 0}', 'endpoint_breaker_pause_s_between_1_and_3600'),
    ('dot_wrapper.egress_rule', '{"scheme": "ftp"}', 'egress_scheme_is_http_or_https'),
    ('dot_wrapper.egress_rule', '{"host": "Agent.invalid"}', 'egress_host_is_exact_lower_case_without_port'),
    ('dot_wrapper.egress_rule', '{"host": "*.invalid"}', 'egress_host_is_exact_lower_case_without_port'),
    ('dot_wrapper.egress_rule', '{"host": "agent.invalid:443"}', 'egress_host_is_exact_lower_case_without_port'),
    ('dot_wrapper.egress_rule', '{"host": ""}', 'egress_host_is_exact_lower_case_without_port'),
    ('dot_wrapper.egress_rule', '{"port": 0}', 'egress_port_between_1_and_65535'),
    ('dot_wrapper.egress_rule', '{"port": 65536}', 'egress_port_between_1_and_65535'),
    ('dot_wrapper.egress_rule', '{"path_prefix": "v1"}', 'egress_path_prefix_begins_with_slash_and_has_no_query'),
    ('dot_wrapper.policy', '{"scope": "role"}', 'policy_scope_is_engine_or_tool'),
    ('dot_wrapper.policy', '{"endpoint": "nowhere"}', 'policy_endpoint_fkey'),
    ('dot_wrapper.policy', '{"modes": ["dance"]}', 'policy_modes_are_plan_verify_apply'),
    ('dot_wrapper.policy', '{"modes": ["apply", null]}', 'policy_modes_are_plan_verify_apply'),
    ('dot_wrapper.policy', '{"lease": ""}', 'policy_lease_has_1_to_200_characters'),
    ('dot_wrapper.policy', jsonb_build_object('lease', repeat('x', 201)), 'policy_lease_has_1_to_200_characters'),
    ('dot_wrapper.policy', '{"lease_ttl_s": 9}', 'policy_lease_ttl_s_between_10_and_86400'),
    ('dot_wrapper.policy', '{"lease_ttl_s": 86401}', 'policy_lease_ttl_s_between_10_and_86400'),
    ('dot_wrapper.policy', '{"connect_timeout_ms": 99}', 'policy_connect_timeout_ms_between_100_and_60000'),
    ('dot_wrapper.policy', '{"idle_timeout_ms": 3600001}', 'policy_idle_timeout_ms_between_100_and_3600000'),
    ('dot_wrapper.policy', '{"total_timeout_ms": 0}', 'policy_total_timeout_ms_between_100_and_3600000'),
    ('dot_wrapper.policy', '{"max_response_bytes": 1023}', 'policy_max_response_bytes_between_1024_and_67108864'),
    ('dot_wrapper.policy', '{"start_by_s": 2592001}', 'policy_start_by_s_between_1_and_2592000'),
    ('dot_wrapper.policy', '{"finish_by_s": 0}', 'policy_finish_by_s_between_1_and_5184000'),
    ('dot_wrapper.policy', '{"max_attempts": 101}', 'policy_max_attempts_between_1_and_100'),
    ('dot_wrapper.policy', '{"retry_base_ms": 0}', 'policy_retry_base_ms_between_1_and_3600000'),
    ('dot_wrapper.policy', '{"retry_max_ms": 86400001}', 'policy_retry_max_ms_between_1_and_86400000'),
    ('dot_wrapper.policy', '{"key_window_s": 0}', 'policy_key_window_s_between_1_and_2592000'),
    ('dot_wrapper.policy', '{"doubt_lease_s": -1}', 'policy_doubt_lease_s_between_0_and_2592000'),
    ('dot_wrapper.policy', '{"max_in_flight": 0}', 'policy_max_in_flight_between_1_and_4096'),
    ('dot_wrapper.policy', '{"in_flight_key": ""}', 'policy_in_flight_key_has_1_to_200_characters'),
    ('dot_wrapper.policy', '{"max_in_flight_per_key": 4097}', 'policy_max_in_flight_per_key_between_1_and_4096'),
    ('dot_wrapper.policy', '{"max_queued": 0}', 'policy_max_queued_between_1_and_1000000'),
    ('dot_wrapper.port', '{"port": "queue"}', 'port_known'),
    ('dot_wrapper.port', '{"origin": "found"}', 'port_origin_known'),
    ('dot_wrapper.port', '{"function": null}', 'port_bound_or_explained'),
    ('dot_wrapper.port', '{"origin": "unbound", "reason": "r"}', 'port_bound_or_explained'),
    ('dot_wrapper.port', '{"origin": "unbound", "function": null}', 'port_bound_or_explained'),
    ('dot_wrapper.breaker', '{"state": "ajar"}', 'breaker_state_known'),
    ('dot_wrapper.breaker', '{"state": "open"}', 'breaker_open_has_end'),
    ('dot_wrapper.breaker_order', '{"state": "half_open"}', 'breaker_order_known'),
    ('dot_wrapper.dot_seal', '{"seal_id": 0}', 'seal_counted'),
    ('dot_wrapper.dot_seal', jsonb_build_object('event_ids', '{}', 'origins', '', 'digests', '\x' || repeat('00', 32)), 'seal_covers_something'),
    ('dot_wrapper.dot_seal', '{"digests": "\\x00"}', 'seal_digest_each'),
    ('dot_wrapper.dot_seal', '{"origins": "x"}', 'seal_origin_each'),
    ('dot_wrapper.dot_seal', '{"prev": "\\x00"}', 'seal_prev_long'),
    ('dot_wrapper.dot_seal', '{"hash": "\\x00"}', 'seal_hash_long'),
    ('dot_wrapper.seal_head', '{"only_row": false}', 'seal_head_single'),
    ('dot_wrapper.worker_life', '{"only_row": false}', 'worker_life_single'),
    ('dot_wrapper.instance', '{"only_row": false}', 'instance_single'),
    ('dot_wrapper.instance', '{"permit_key": "\\x00"}', 'instance_key_long');

-- Tries a row, in a subtransaction that is always undone; says which constraint refused it.
CREATE FUNCTION pg_temp.refused_by(tab regclass, r jsonb) RETURNS name LANGUAGE plpgsql AS $$
DECLARE
    refuser name;
BEGIN
    DELETE FROM dot_wrapper.instance;
    DELETE FROM dot_wrapper.port;
    EXECUTE format('INSERT INTO %s OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_record(NULL::%s, $1)', tab, tab) USING r;
    RAISE EXCEPTION SQLSTATE 'DOT01';
EXCEPTION
    WHEN SQLSTATE 'DOT01' THEN RETURN 'nothing';
    WHEN integrity_constraint_violation THEN
        GET STACKED DIAGNOSTICS refuser = CONSTRAINT_NAME;
        RETURN refuser;
END $$;

SELECT tab, pg_temp.refused_by(tab, r) AS refused_by FROM good ORDER BY tab::text COLLATE "C";
SELECT tab, refused_by, count(*) AS rows, count(*) FILTER (WHERE pg_temp.refused_by(tab, r || change) = refused_by) AS refused
FROM bad JOIN good USING (tab) GROUP BY tab, refused_by ORDER BY tab::text COLLATE "C", refused_by COLLATE "C";
-- Those that were not refused as they should: none.
SELECT tab, change, refused_by, pg_temp.refused_by(tab, r || change) AS but FROM bad JOIN good USING (tab)
WHERE pg_temp.refused_by(tab, r || change) <> refused_by;
-- Constraints that this test forgot: none but those that name the rule which a row breaks. Keys are tested by their users; NOT NULL has no name before PostgreSQL 18.
SELECT conrelid::regclass AS tab, conname FROM pg_constraint
WHERE connamespace = 'dot_wrapper'::regnamespace AND contype IN ('c', 'f') AND conname NOT IN (SELECT refused_by FROM bad)
ORDER BY conname COLLATE "C";

-- One admitted run per key; any number of refused ones.
SELECT run_status FROM fn_dot_run('B', 'apply', '00000000-0000-7000-8000-000000000002');
SELECT pg_temp.refused_by(tab, r || '{"code": "B", "lease_key": null, "fencing_token": null}') AS same_key,
       pg_temp.refused_by(tab, r || '{"code": "B", "run_status": "refused", "admitted": false, "reason": "r", "message": "m",
                                      "finished_at": "2026-01-01 00:00:01Z"}') AS same_key_refused
FROM good WHERE tab = 'dot_wrapper.dot_run'::regclass;

-- What is final stays final, and the ledger only grows, for a superuser too.
SELECT run_id AS planned FROM fn_dot_run('A') \gset
SELECT run_id AS queued FROM fn_dot_run('A', 'apply') \gset
UPDATE dot_wrapper.dot_run SET message = 'better' WHERE run_id = :'planned';
\echo :LAST_ERROR_SQLSTATE
UPDATE dot_wrapper.dot_run SET message = 'better';
UPDATE dot_wrapper.dot_run SET message = 'waits' WHERE run_id = :'queued';
DELETE FROM dot_wrapper.dot_run WHERE run_id = :'queued';
DELETE FROM dot_wrapper.dot_run WHERE false;
TRUNCATE dot_wrapper.dot_run;
UPDATE dot_wrapper.dot_run_event SET at = now();
DELETE FROM dot_wrapper.dot_run_event;
TRUNCATE dot_wrapper.dot_run_event;
UPDATE dot_wrapper.dot_run_attempt SET attempt = 2;
DELETE FROM dot_wrapper.dot_run_attempt;
TRUNCATE dot_wrapper.dot_run_attempt;
SELECT run_status, message FROM dot_run ORDER BY run_id;
-- The views are for reading, also for those to whom somebody granted more than that.
CREATE ROLE regress_dot_app IN ROLE pg_read_all_data;
GRANT ALL ON ALL TABLES IN SCHEMA public TO regress_dot_app;
SET ROLE regress_dot_app;
UPDATE dot_run SET message = 'better';
DELETE FROM dot_run;
INSERT INTO dot_run (code) VALUES ('A');
UPDATE dot_run_event SET event = 'succeeded';
DELETE FROM dot_run_attempt;
DELETE FROM dot_run_gate;
RESET ROLE;
DROP OWNED BY regress_dot_app;
DROP ROLE regress_dot_app;

-- The shipped substrate's own check.
\set VERBOSITY terse
SELECT fn_dot_iu_command_log('sweep', 'dance', 'ok', true);
SELECT fn_dot_iu_command_log('sweep', 'apply', 'ok', true) > 0 AS logged;

DROP EXTENSION dot_wrapper;
