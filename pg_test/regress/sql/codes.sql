-- Codes of any script and punctuation: found exactly, kept as they are, and never more than one segment of a path.
\set ECHO none
\getenv dir PG_ABS_SRCDIR
\i :dir/include/setup.sql

INSERT INTO dot_tools (code, name, execution_engine) SELECT c, 'tool', 'agent_api' FROM unnest(ARRAY[
    'it''s', 'say "hi"', 'a/b', '../up', '...', 'a b', ' lead', 'a%2Fb', 'q?x=1', 'h#y', 'back\slash', '{code}', '{args.x}', '$1',
    'ДОТ-КГ-017', 'ünïcode', '数据', '🔧', 'e' || U&'\0301', '-- ; DROP TABLE dot_tools', '%s %d', 'null', '<b>', 'A;B', 'a@b:c', '~x_y-z.1'
]) AS t (c);
SELECT r.code, r.code = t.code AS kept, r.run_status, r.request ->> 'url' AS url, r.request -> 'body' ->> 'dot_code' = t.code AS sent_as_is,
       r.lease_key = 'tool:' || t.code AS lease_is_its_own
FROM dot_tools t, LATERAL fn_dot_run(t.code) r WHERE t.name = 'tool' ORDER BY t.code COLLATE "C";

-- Found exactly: neither case, nor space, nor another form of the same letter will do.
SELECT code, run_status, reason, message FROM unnest(ARRAY['a', 'A ', 'a/B', 'ÜNÏCODE', U&'\00E9', 'e', '%', '_', 'A%00']) c, fn_dot_run(c) ORDER BY code COLLATE "C";

-- What a URL takes for a step has no request; as a part of a longer segment it is text.
INSERT INTO dot_tools (code, name, execution_engine) VALUES ('.', 'Here', 'agent_api'), ('..', 'Up', 'agent_api');
SELECT code, run_status, reason, message FROM unnest(ARRAY['.', '..']) c, fn_dot_run(c) ORDER BY code;
UPDATE dot_wrapper.endpoint SET path = '/v1/x{code}/{code}';
SELECT run_status, request ->> 'url' AS url FROM fn_dot_run('a/b');
-- A path without the code, and a base with a path of its own.
UPDATE dot_wrapper.endpoint SET path = '/hook', base_url = 'https://agent.invalid/api/';
SELECT run_status, request ->> 'url' AS url FROM fn_dot_run('a/b');
-- A rule's path is held against whole segments of the URL as it would be dialled.
UPDATE dot_wrapper.endpoint SET path = DEFAULT, base_url = 'https://AGENT.invalid:443/v0/../';
UPDATE dot_wrapper.egress_rule SET path_prefix = '/v1/dots';
SELECT request ->> 'url' AS url, jsonb_path_query_first(gates, '$[*] ? (@.gate == "egress").verdict') AS egress FROM fn_dot_run('../up');
UPDATE dot_wrapper.egress_rule SET path_prefix = '/v1/dot';
SELECT jsonb_path_query_first(gates, '$[*] ? (@.gate == "egress").reason') AS egress FROM fn_dot_run('../up');
UPDATE dot_wrapper.egress_rule SET path_prefix = '/v1/dots/..%2Fup/';
SELECT jsonb_path_query_first(gates, '$[*] ? (@.gate == "egress").verdict') AS egress FROM fn_dot_run('../up');
SELECT jsonb_path_query_first(gates, '$[*] ? (@.gate == "egress").reason') AS egress FROM fn_dot_run('A');

-- Keys and arguments in any script come back as they went in; what is quoted back in an error is cut.
SELECT idempotency_key, args FROM fn_dot_run('A', 'plan', NULL, '{"ключ \"q\"": "zeile\nzwei\ttab \u0001 \ud83d\udd27", "": [null, true, {}]}', 'ключ ''n° 1''');
SELECT message FROM fn_dot_run('unknown ' || repeat('ж', 100));
SELECT fn_dot_run('A', 'план' || repeat('!', 100));

DROP EXTENSION dot_wrapper;
