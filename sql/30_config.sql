-- What an administrator configures: endpoints, egress rules, policies. Written with plain INSERT and UPDATE by the
-- extension's owner, or by whoever is granted it; a row here can make the worker call a host.

CREATE TABLE dot_wrapper.endpoint (
    name text PRIMARY KEY,
    base_url text NOT NULL,
    path text NOT NULL DEFAULT '/v1/dots/{code}/runs',
    auth_header text NOT NULL DEFAULT 'Authorization',
    auth_scheme text NOT NULL DEFAULT 'Bearer',
    auth_secret text,
    CONSTRAINT endpoint_base_url_http CHECK (base_url ~ '^https?://[^/?#@\s]+(/[^?#\s]*)?$'),
    CONSTRAINT endpoint_path_absolute CHECK (path ~ '^/[^?#\s\\]*$'),
    CONSTRAINT endpoint_header_token CHECK (auth_header ~ '^[A-Za-z0-9_-]+$'),
    CONSTRAINT endpoint_scheme_token CHECK (auth_scheme ~ '^[A-Za-z0-9_-]*$'),
    CONSTRAINT endpoint_secret_name CHECK (auth_secret ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$' AND auth_secret !~ '\.\.')
);
COMMENT ON TABLE dot_wrapper.endpoint IS 'Where engines listen';
COMMENT ON COLUMN dot_wrapper.endpoint.base_url IS 'http or https, no query, fragment or user information';
COMMENT ON COLUMN dot_wrapper.endpoint.path IS 'Appended to base_url; {code} stands for the tool''s code, percent-encoded';
COMMENT ON COLUMN dot_wrapper.endpoint.auth_secret IS
    'The name of a secret: a file in dot_wrapper.secrets_dir, or the environment variable DOT_SECRET_<NAME> of the server. Never the secret itself.';

CREATE TABLE dot_wrapper.egress_rule (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scheme text NOT NULL DEFAULT 'https' CONSTRAINT egress_scheme_known CHECK (scheme IN ('http', 'https')),
    host text NOT NULL CONSTRAINT egress_host_plain CHECK (host = lower(host) AND host ~ '^(\[[0-9a-f:.]+\]|[^\s/:@?#*\[\]]+)$'),
    port integer NOT NULL DEFAULT 443 CONSTRAINT egress_port_range CHECK (port BETWEEN 1 AND 65535),
    path_prefix text NOT NULL DEFAULT '/' CONSTRAINT egress_path_absolute CHECK (path_prefix ~ '^/[^?#\s]*$'),
    cidrs cidr[] NOT NULL DEFAULT '{}',
    note text
);
COMMENT ON TABLE dot_wrapper.egress_rule IS 'Where requests may go. No rule, no request.';
COMMENT ON COLUMN dot_wrapper.egress_rule.host IS 'Exact, lower case; an IPv6 address in brackets';
COMMENT ON COLUMN dot_wrapper.egress_rule.path_prefix IS 'Matches whole path segments';
COMMENT ON COLUMN dot_wrapper.egress_rule.cidrs IS
    'Addresses that may be connected to. Empty: public unicast addresses only; private ones must be listed.';

CREATE TABLE dot_wrapper.policy (
    scope text NOT NULL CONSTRAINT policy_scope_known CHECK (scope IN ('engine', 'tool')),
    name text NOT NULL,
    endpoint text REFERENCES dot_wrapper.endpoint ON UPDATE CASCADE,
    modes text[] CONSTRAINT policy_modes_known CHECK (modes <@ ARRAY['plan', 'verify', 'apply'] AND array_position(modes, NULL) IS NULL),
    idempotent boolean,
    lease text CONSTRAINT policy_lease_bounded CHECK (length(lease) BETWEEN 1 AND 200),
    lease_ttl_s integer CONSTRAINT policy_lease_ttl_range CHECK (lease_ttl_s BETWEEN 10 AND 86400),
    connect_timeout_ms integer CONSTRAINT policy_connect_range CHECK (connect_timeout_ms BETWEEN 100 AND 60000),
    idle_timeout_ms integer CONSTRAINT policy_idle_range CHECK (idle_timeout_ms BETWEEN 100 AND 3600000),
    total_timeout_ms integer CONSTRAINT policy_total_range CHECK (total_timeout_ms BETWEEN 100 AND 3600000),
    max_response_bytes integer CONSTRAINT policy_response_range CHECK (max_response_bytes BETWEEN 1024 AND 67108864),
    start_by_s integer CONSTRAINT policy_start_by_range CHECK (start_by_s BETWEEN 1 AND 2592000),
    PRIMARY KEY (scope, name)
);
COMMENT ON TABLE dot_wrapper.policy IS 'How tools may be run: one row for an engine, one for a tool that differs. NULL: as the engine says, or the default.';
COMMENT ON COLUMN dot_wrapper.policy.name IS 'The engine''s name, or the tool''s code';
COMMENT ON COLUMN dot_wrapper.policy.modes IS 'Modes offered besides plan; default {apply}. A tool that does not declare verify is refused, never silently run.';
COMMENT ON COLUMN dot_wrapper.policy.idempotent IS 'The engine promises that a second delivery with the same key has no second effect; default false. Kept for retries: this version delivers each run once.';
COMMENT ON COLUMN dot_wrapper.policy.lease IS 'Lease key: text with {code} and {args.NAME}, or none; default tool:{code}';
COMMENT ON COLUMN dot_wrapper.policy.lease_ttl_s IS 'Seconds, 10 to 86400; default 300; renewed while the run is not over';
COMMENT ON COLUMN dot_wrapper.policy.connect_timeout_ms IS 'Milliseconds for DNS, TCP and TLS, 100 to 60000; default 5000';
COMMENT ON COLUMN dot_wrapper.policy.idle_timeout_ms IS 'Longest silence while an answer is received, milliseconds, 100 to 3600000; default 30000';
COMMENT ON COLUMN dot_wrapper.policy.total_timeout_ms IS 'One delivery with all polling, milliseconds, 100 to 3600000; default 60000';
COMMENT ON COLUMN dot_wrapper.policy.max_response_bytes IS 'Largest answer, 1024 to 67108864; default 1048576';
COMMENT ON COLUMN dot_wrapper.policy.start_by_s IS 'A run not claimed within this many seconds expires, 1 to 2592000; default 86400';

GRANT SELECT ON dot_wrapper.endpoint, dot_wrapper.egress_rule, dot_wrapper.policy TO dot_wrapper_worker;

SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.endpoint', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.egress_rule', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.egress_rule_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.policy', '');
