-- Schedules: when a tool with trigger_type cron or dual is due. fn_dot_schedule_sync() makes pg_cron jobs of them.

CREATE TABLE dot_wrapper.schedule (
    code text PRIMARY KEY CONSTRAINT schedule_code_has_1_to_200_characters CHECK (length(code) BETWEEN 1 AND 200),
    schedule text NOT NULL CONSTRAINT schedule_has_1_to_200_characters CHECK (length(schedule) BETWEEN 1 AND 200),
    mode text NOT NULL DEFAULT 'apply' CONSTRAINT schedule_mode_is_verify_or_apply CHECK (mode IN ('verify', 'apply')),
    args jsonb NOT NULL DEFAULT '{}' CONSTRAINT schedule_args_are_an_object CHECK (jsonb_typeof(args) = 'object'),
    overlap text NOT NULL DEFAULT 'skip' CONSTRAINT schedule_overlap_is_skip_queue_or_allow CHECK (overlap IN ('skip', 'queue', 'allow')),
    window_s integer NOT NULL DEFAULT 60 CONSTRAINT schedule_window_s_between_1_and_86400 CHECK (window_s BETWEEN 1 AND 86400),
    note text
);
COMMENT ON TABLE dot_wrapper.schedule IS
    'Schedules of tools whose trigger_type is cron or dual; a row here counts more than the catalogue''s own column. Takes effect with fn_dot_schedule_sync().';
COMMENT ON COLUMN dot_wrapper.schedule.code IS 'The tool';
COMMENT ON COLUMN dot_wrapper.schedule.schedule IS
    'As pg_cron has it: minute, hour, day of month, month, day of week, in GMT or what cron.timezone says; @hourly, @daily, @weekly, @monthly; with newer versions of pg_cron also N seconds';
COMMENT ON COLUMN dot_wrapper.schedule.mode IS 'What a tick asks for: verify or apply';
COMMENT ON COLUMN dot_wrapper.schedule.args IS 'The arguments of a tick''s run';
COMMENT ON COLUMN dot_wrapper.schedule.overlap IS
    'While another run of the tool is not over: skip refuses the tick, queue lets it wait for the lease, allow leaves it to the lease';
COMMENT ON COLUMN dot_wrapper.schedule.window_s IS 'A tick is started no later than this many seconds after it was due, 1 to 86400';
COMMENT ON COLUMN dot_wrapper.schedule.note IS 'For people';

SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.schedule', '');
