-- What an administrator configures: endpoints, egress rules, policies. Written with plain INSERT and UPDATE by the
-- extension's owner, or by whoever is granted it; a row here can make the worker call a host.

CREATE TABLE dot_wrapper.endpoint (
    name text PRIMARY KEY CONSTRAINT endpoint_name_begins_with_no_parenthesis CHECK (name NOT LIKE '(%'),
    base_url text NOT NULL,
    path text NOT NULL DEFAULT '/v1/dots/{code}/runs',
    auth_header text NOT NULL DEFAULT 'Authorization',
    auth_scheme text NOT NULL DEFAULT 'Bearer',
    auth_secret text,
    status_path text,
    max_in_flight integer CONSTRAINT endpoint_max_in_flight_between_1_and_4096 CHECK (max_in_flight BETWEEN 1 AND 4096),
    rate_per_s double precision CONSTRAINT endpoint_rate_per_s_above_0_up_to_100000 CHECK (rate_per_s BETWEEN 0.001 AND 100000),
    rate_burst integer NOT NULL DEFAULT 1 CONSTRAINT endpoint_rate_burst_between_1_and_100000 CHECK (rate_burst BETWEEN 1 AND 100000),
    breaker_failures integer NOT NULL DEFAULT 5 CONSTRAINT endpoint_breaker_failures_between_0_and_1000 CHECK (breaker_failures BETWEEN 0 AND 1000),
    breaker_pause_s integer NOT NULL DEFAULT 30 CONSTRAINT endpoint_breaker_pause_s_between_1_and_3600 CHECK (breaker_pause_s BETWEEN 1 AND 3600),
    CONSTRAINT endpoint_status_path_begins_with_slash_and_has_run_id CHECK (status_path ~ '^/[^?#\s\\]*$' AND position('{run_id}' IN status_path) > 0),
    CONSTRAINT endpoint_base_url_is_http_or_https_host_and_path_only CHECK (base_url ~ '^https?://[^/?#@\s]+(/[^?#\s]*)?$'),
    CONSTRAINT endpoint_path_begins_with_slash_and_has_no_query CHECK (path ~ '^/[^?#\s\\]*$'),
    CONSTRAINT endpoint_auth_header_is_a_header_name CHECK (auth_header ~ '^[A-Za-z0-9_-]+$'),
    CONSTRAINT endpoint_auth_scheme_is_one_word CHECK (auth_scheme ~ '^[A-Za-z0-9_-]*$'),
    CONSTRAINT endpoint_auth_secret_is_a_name_not_the_secret CHECK (auth_secret ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$' AND auth_secret !~ '\.\.')
);
COMMENT ON TABLE dot_wrapper.endpoint IS 'Where engines listen';
COMMENT ON COLUMN dot_wrapper.endpoint.base_url IS 'http or https, no query, fragment or user information';
COMMENT ON COLUMN dot_wrapper.endpoint.path IS 'Appended to base_url; {code} stands for the tool''s code, percent-encoded';
COMMENT ON COLUMN dot_wrapper.endpoint.auth_secret IS
    'The name of a secret: a file in dot_wrapper.secrets_dir, or the environment variable DOT_SECRET_<NAME> of the server. Never the secret itself.';
COMMENT ON COLUMN dot_wrapper.endpoint.status_path IS
    'Where the agent tells what became of an idempotency key: appended to base_url, with {run_id} in it. NULL: it cannot be asked, and a run in doubt waits for an operator.';
COMMENT ON COLUMN dot_wrapper.endpoint.max_in_flight IS
    'Calls to it at the same time, 1 to 4096; NULL: as many as dot_wrapper.max_in_flight leaves';
COMMENT ON COLUMN dot_wrapper.endpoint.rate_per_s IS 'Requests a second, 0.001 to 100000; NULL: no limit';
COMMENT ON COLUMN dot_wrapper.endpoint.rate_burst IS 'Requests that may go at once after a pause, 1 to 100000';
COMMENT ON COLUMN dot_wrapper.endpoint.breaker_failures IS
    'Deliveries in a row that got no useful answer and open the circuit breaker, 0 to 1000; 0: it never opens by itself';
COMMENT ON COLUMN dot_wrapper.endpoint.breaker_pause_s IS
    'Seconds that the breaker stays open before one delivery may try again, 1 to 3600; doubles while that fails, up to an hour';

CREATE TABLE dot_wrapper.egress_rule (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scheme text NOT NULL DEFAULT 'https' CONSTRAINT egress_scheme_is_http_or_https CHECK (scheme IN ('http', 'https')),
    host text NOT NULL CONSTRAINT egress_host_is_exact_lower_case_without_port CHECK (host = lower(host) AND host ~ '^(\[[0-9a-f:.]+\]|[^\s/:@?#*\[\]]+)$'),
    port integer NOT NULL DEFAULT 443 CONSTRAINT egress_port_between_1_and_65535 CHECK (port BETWEEN 1 AND 65535),
    path_prefix text NOT NULL DEFAULT '/' CONSTRAINT egress_path_prefix_begins_with_slash_and_has_no_query CHECK (path_prefix ~ '^/[^?#\s]*$'),
    cidrs cidr[] NOT NULL DEFAULT '{}',
    note text
);
COMMENT ON TABLE dot_wrapper.egress_rule IS 'Where requests may go. No rule, no request.';
COMMENT ON COLUMN dot_wrapper.egress_rule.host IS 'Exact, lower case; an IPv6 address in brackets';
COMMENT ON COLUMN dot_wrapper.egress_rule.path_prefix IS 'Matches whole path segments';
COMMENT ON COLUMN dot_wrapper.egress_rule.cidrs IS
    'Addresses that may be connected to. Empty: public unicast addresses only; private ones must be listed.';

CREATE TABLE dot_wrapper.policy (
    scope text NOT NULL CONSTRAINT policy_scope_is_engine_or_tool CHECK (scope IN ('engine', 'tool')),
    name text NOT NULL,
    endpoint text REFERENCES dot_wrapper.endpoint ON UPDATE CASCADE,
    modes text[] CONSTRAINT policy_modes_are_plan_verify_apply CHECK (modes <@ ARRAY['plan', 'verify', 'apply'] AND array_position(modes, NULL) IS NULL),
    idempotent boolean,
    lease text CONSTRAINT policy_lease_has_1_to_200_characters CHECK (length(lease) BETWEEN 1 AND 200),
    lease_wait boolean,
    lease_ttl_s integer CONSTRAINT policy_lease_ttl_s_between_10_and_86400 CHECK (lease_ttl_s BETWEEN 10 AND 86400),
    connect_timeout_ms integer CONSTRAINT policy_connect_timeout_ms_between_100_and_60000 CHECK (connect_timeout_ms BETWEEN 100 AND 60000),
    idle_timeout_ms integer CONSTRAINT policy_idle_timeout_ms_between_100_and_3600000 CHECK (idle_timeout_ms BETWEEN 100 AND 3600000),
    total_timeout_ms integer CONSTRAINT policy_total_timeout_ms_between_100_and_3600000 CHECK (total_timeout_ms BETWEEN 100 AND 3600000),
    max_response_bytes integer CONSTRAINT policy_max_response_bytes_between_1024_and_67108864 CHECK (max_response_bytes BETWEEN 1024 AND 67108864),
    start_by_s integer CONSTRAINT policy_start_by_s_between_1_and_2592000 CHECK (start_by_s BETWEEN 1 AND 2592000),
    finish_by_s integer CONSTRAINT policy_finish_by_s_between_1_and_5184000 CHECK (finish_by_s BETWEEN 1 AND 5184000),
    max_attempts integer CONSTRAINT policy_max_attempts_between_1_and_100 CHECK (max_attempts BETWEEN 1 AND 100),
    retry_base_ms integer CONSTRAINT policy_retry_base_ms_between_1_and_3600000 CHECK (retry_base_ms BETWEEN 1 AND 3600000),
    retry_max_ms integer CONSTRAINT policy_retry_max_ms_between_1_and_86400000 CHECK (retry_max_ms BETWEEN 1 AND 86400000),
    key_window_s integer CONSTRAINT policy_key_window_s_between_1_and_2592000 CHECK (key_window_s BETWEEN 1 AND 2592000),
    doubt_lease_s integer CONSTRAINT policy_doubt_lease_s_between_0_and_2592000 CHECK (doubt_lease_s BETWEEN 0 AND 2592000),
    max_in_flight integer CONSTRAINT policy_max_in_flight_between_1_and_4096 CHECK (max_in_flight BETWEEN 1 AND 4096),
    in_flight_key text CONSTRAINT policy_in_flight_key_has_1_to_200_characters CHECK (length(in_flight_key) BETWEEN 1 AND 200),
    max_in_flight_per_key integer CONSTRAINT policy_max_in_flight_per_key_between_1_and_4096 CHECK (max_in_flight_per_key BETWEEN 1 AND 4096),
    max_queued integer CONSTRAINT policy_max_queued_between_1_and_1000000 CHECK (max_queued BETWEEN 1 AND 1000000),
    script_args text[] CONSTRAINT policy_script_args_are_texts CHECK (array_ndims(script_args) = 1 AND array_position(script_args, NULL) IS NULL OR cardinality(script_args) = 0),
    dry_run_arg text CONSTRAINT policy_dry_run_arg_has_1_to_200_characters CHECK (length(dry_run_arg) BETWEEN 1 AND 200),
    max_memory_mb integer CONSTRAINT policy_max_memory_mb_between_16_and_1048576 CHECK (max_memory_mb BETWEEN 16 AND 1048576),
    max_cpu_s integer CONSTRAINT policy_max_cpu_s_between_1_and_86400 CHECK (max_cpu_s BETWEEN 1 AND 86400),
    max_file_mb integer CONSTRAINT policy_max_file_mb_between_1_and_1048576 CHECK (max_file_mb BETWEEN 1 AND 1048576),
    PRIMARY KEY (scope, name)
);
COMMENT ON TABLE dot_wrapper.policy IS 'How tools may be run: one row for an engine, one for a tool that differs. NULL: as the engine says, or the default.';
COMMENT ON COLUMN dot_wrapper.policy.name IS 'The engine''s name, or the tool''s code';
COMMENT ON COLUMN dot_wrapper.policy.modes IS 'Modes offered besides plan; default {apply}. A tool that does not declare verify is refused, never silently run.';
COMMENT ON COLUMN dot_wrapper.policy.idempotent IS 'The engine promises that a second delivery with the same key has no second effect; default false. Only then is an apply repeated whose outcome is unknown.';
COMMENT ON COLUMN dot_wrapper.policy.lease IS 'Lease key: text with {code} and {args.NAME}, or none; default tool:{code}';
COMMENT ON COLUMN dot_wrapper.policy.lease_wait IS 'Whether a run waits in the queue for a lease that another run holds, up to its start_by; default false: it is refused';
COMMENT ON COLUMN dot_wrapper.policy.lease_ttl_s IS 'Seconds, 10 to 86400; default 300; renewed while the run is not over';
COMMENT ON COLUMN dot_wrapper.policy.connect_timeout_ms IS 'Milliseconds for DNS, TCP and TLS, 100 to 60000; default 5000';
COMMENT ON COLUMN dot_wrapper.policy.idle_timeout_ms IS 'Longest silence while an answer is received, milliseconds, 100 to 3600000; default 30000';
COMMENT ON COLUMN dot_wrapper.policy.total_timeout_ms IS 'One delivery with all polling, milliseconds, 100 to 3600000; default 60000';
COMMENT ON COLUMN dot_wrapper.policy.max_response_bytes IS 'Largest answer, 1024 to 67108864; default 1048576';
COMMENT ON COLUMN dot_wrapper.policy.start_by_s IS 'A run not claimed within this many seconds expires, 1 to 2592000; default 86400';
COMMENT ON COLUMN dot_wrapper.policy.finish_by_s IS 'No delivery begins or lasts later than this many seconds after the request, 1 to 5184000; default 172800';
COMMENT ON COLUMN dot_wrapper.policy.max_attempts IS 'Deliveries of one run, the first included, 1 to 100; default 5';
COMMENT ON COLUMN dot_wrapper.policy.retry_base_ms IS 'Milliseconds, 1 to 3600000; default 1000. The pause before a repetition is random between 0 and this, doubled with each attempt';
COMMENT ON COLUMN dot_wrapper.policy.retry_max_ms IS 'Longest such pause, milliseconds, 1 to 86400000; default 300000. What the agent asks for with Retry-After is waited for in any case';
COMMENT ON COLUMN dot_wrapper.policy.key_window_s IS 'Seconds for which the agent remembers an idempotency key, counted from the first delivery, 1 to 2592000; default 86400. No repetition is sent that could arrive later';
COMMENT ON COLUMN dot_wrapper.policy.doubt_lease_s IS 'Seconds after which a run in doubt gives up its lease, 0 to 2592000; default NULL: it keeps it until it is resolved';
COMMENT ON COLUMN dot_wrapper.policy.max_in_flight IS 'Calls of one tool at the same time, 1 to 4096; default NULL: three quarters of dot_wrapper.max_in_flight';
COMMENT ON COLUMN dot_wrapper.policy.in_flight_key IS 'What max_in_flight_per_key counts by: text with {code} and {args.NAME}; default {code}';
COMMENT ON COLUMN dot_wrapper.policy.max_in_flight_per_key IS 'Calls with the same in_flight_key at the same time, 1 to 4096; default NULL: no limit';
COMMENT ON COLUMN dot_wrapper.policy.max_queued IS 'Runs of one tool that may wait in the queue, 1 to 1000000; more are refused. Default NULL: no limit but that of the whole queue';
COMMENT ON COLUMN dot_wrapper.policy.script_args IS 'A script''s arguments, one element each: text with {code} and {args.NAME}; an element that is exactly {args.NAME} may be an array and becomes several; one with {args.NAME?} is left out where that is missing; {dry_run} is where dry_run_arg goes. Default: none';
COMMENT ON COLUMN dot_wrapper.policy.dry_run_arg IS 'The argument that tells a script to change nothing. With it, verify is offered; default NULL: it is not';
COMMENT ON COLUMN dot_wrapper.policy.max_memory_mb IS 'MiB of memory for each process of a script (RLIMIT_DATA), 16 to 1048576; default 1024';
COMMENT ON COLUMN dot_wrapper.policy.max_cpu_s IS 'Seconds of processor time for each process of a script (RLIMIT_CPU), 1 to 86400; default: total_timeout_ms';
COMMENT ON COLUMN dot_wrapper.policy.max_file_mb IS 'MiB of the largest file that a script writes (RLIMIT_FSIZE), 1 to 1048576; default 1024';

GRANT SELECT ON dot_wrapper.endpoint, dot_wrapper.egress_rule, dot_wrapper.policy TO dot_wrapper_worker;

SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.endpoint', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.egress_rule', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.egress_rule_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.policy', '');
