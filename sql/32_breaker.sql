-- Circuit breakers of the endpoints: what the worker found out, and what operators ordered. Two tables, so that an
-- operator's open transaction never keeps the worker from recording results.

CREATE TABLE dot_wrapper.breaker (
    endpoint text PRIMARY KEY,
    state text NOT NULL CONSTRAINT breaker_state_known CHECK (state IN ('closed', 'open')),
    failures integer NOT NULL,
    open_until timestamptz,
    pause_s integer,
    paused_until timestamptz,
    forced boolean NOT NULL,
    followed bigint NOT NULL,
    reason text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT breaker_open_has_end CHECK ((state = 'open') = (open_until IS NOT NULL))
) WITH (fillfactor = 50);
COMMENT ON TABLE dot_wrapper.breaker IS 'Circuit breakers as the worker left them; written when something changes. No row: closed, without a failure';
COMMENT ON COLUMN dot_wrapper.breaker.failures IS 'Deliveries in a row that got no useful answer';
COMMENT ON COLUMN dot_wrapper.breaker.open_until IS 'Open: from then on it is half open, and one delivery tries';
COMMENT ON COLUMN dot_wrapper.breaker.pause_s IS 'How long the next opening lasts; NULL: as the endpoint says';
COMMENT ON COLUMN dot_wrapper.breaker.paused_until IS 'The agent asked to be left alone until then (429 or 503 with Retry-After)';
COMMENT ON COLUMN dot_wrapper.breaker.followed IS 'The last order that the worker has followed';

CREATE TABLE dot_wrapper.breaker_order (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint text NOT NULL,
    state text NOT NULL CONSTRAINT breaker_order_known CHECK (state IN ('open', 'closed', 'auto')),
    note text NOT NULL,
    ordered_by name NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE dot_wrapper.breaker_order IS 'What operators ordered with fn_dot_breaker; the last order of an endpoint is in force';
CREATE INDEX breaker_order_last ON dot_wrapper.breaker_order (endpoint, number);

CREATE VIEW dot_wrapper.breaker_now AS
SELECT e.name AS endpoint,
       CASE WHEN x.forced THEN 'open'
            WHEN x.open_until IS NULL THEN 'closed'
            WHEN x.open_until > clock_timestamp() THEN 'open'
            ELSE 'half_open' END AS state,
       x.failures, x.open_until, x.paused_until, x.forced, x.reason, o.note, o.ordered_by, o.ordered_at,
       greatest(b.changed_at, o.ordered_at) AS changed_at
FROM dot_wrapper.endpoint e
LEFT JOIN dot_wrapper.breaker b ON b.endpoint = e.name
LEFT JOIN LATERAL (
    SELECT r.number, r.state, r.note, r.ordered_by, r.ordered_at FROM dot_wrapper.breaker_order r
    WHERE r.endpoint = e.name ORDER BY r.number DESC LIMIT 1
) o ON true
-- What the worker has found out since the last order, or that order if it has not seen it yet.
CROSS JOIN LATERAL (
    SELECT coalesce(b.failures, 0) AS failures, b.open_until, b.paused_until, coalesce(b.forced, false) AS forced,
           coalesce(b.reason, '') AS reason
    WHERE o.number IS NULL OR o.number <= b.followed
    UNION ALL
    SELECT coalesce(b.failures, 0), b.open_until, b.paused_until, true, coalesce(b.reason, '')
    WHERE o.state = 'open' AND o.number > coalesce(b.followed, 0)
    UNION ALL
    SELECT 0, NULL, NULL, false, ''
    WHERE o.state = 'closed' AND o.number > coalesce(b.followed, 0)
    UNION ALL
    SELECT coalesce(b.failures, 0), CASE WHEN b.forced THEN o.ordered_at ELSE b.open_until END, b.paused_until, false,
           coalesce(b.reason, '')
    WHERE o.state = 'auto' AND o.number > coalesce(b.followed, 0)
) x;
COMMENT ON VIEW dot_wrapper.breaker_now IS 'Every endpoint''s circuit breaker as it stands now';

GRANT SELECT, INSERT, UPDATE ON dot_wrapper.breaker TO dot_wrapper_worker;
GRANT SELECT ON dot_wrapper.breaker_order, dot_wrapper.breaker_now TO dot_wrapper_worker;

-- Dumped: what people ordered. Not dumped: what the worker found out about agents of another day.
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.breaker_order', '');
SELECT pg_catalog.pg_extension_config_dump('dot_wrapper.breaker_order_number_seq', '');

CREATE VIEW @extschema@.dot_breaker AS
SELECT n.endpoint, n.state, n.failures, n.open_until, n.paused_until, n.forced,
       CASE WHEN n.forced THEN 'an operator keeps it open: ' || n.note
            WHEN n.state = 'open' THEN 'open after ' || n.failures || ' failures in a row, the last: ' || n.reason
            WHEN n.state = 'half_open' AND n.reason <> '' THEN 'the next run tries; it was open because of: ' || n.reason
            WHEN n.state = 'half_open' THEN 'the next run tries'
            WHEN n.paused_until > clock_timestamp() THEN n.reason
            WHEN n.failures > 0 THEN n.failures || ' failures in a row, the last: ' || n.reason
            ELSE 'nothing is wrong' END AS says,
       n.note, n.ordered_by, n.changed_at
FROM dot_wrapper.breaker_now n;
COMMENT ON VIEW @extschema@.dot_breaker IS 'Circuit breakers: one row per endpoint. Runs for one that is open wait in the queue.';
COMMENT ON COLUMN @extschema@.dot_breaker.state IS 'closed: runs are sent; open: none is; half_open: one tries';
COMMENT ON COLUMN @extschema@.dot_breaker.paused_until IS 'The agent asked to be left alone until then';
COMMENT ON COLUMN @extschema@.dot_breaker.forced IS 'An operator keeps it open; see fn_dot_breaker';
COMMENT ON COLUMN @extschema@.dot_breaker.note IS 'What was noted with the last order';
