-- The extension with every gate open: a tool A that takes a lease, a tool B that takes none, an agent that is allowed.
-- The caller has set ECHO to none; nothing of this is in the output.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS dot_wrapper CASCADE;
CREATE EXTENSION dot_wrapper;
INSERT INTO dot_tools (code, name, execution_engine) VALUES
    ('A', 'Tool A', 'agent_api'),
    ('B', 'Tool B', 'agent_api');
INSERT INTO dot_wrapper.endpoint (name, base_url, auth_secret) VALUES ('agent', 'https://agent.invalid', 'agent-token');
INSERT INTO dot_wrapper.egress_rule (host) VALUES ('agent.invalid');
INSERT INTO dot_wrapper.policy (scope, name, endpoint, modes, lease) VALUES
    ('engine', 'agent_api', 'agent', '{verify,apply}', NULL),
    ('tool', 'B', NULL, NULL, 'none');
UPDATE dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled';
UPDATE dot_config SET value = '1' WHERE key = 'fs_snapshot_present';
\set SHOW_CONTEXT never
\set ECHO all
