// The request table as a client of Directus sees it. Started by .ci/directus, which says what is running.
//
// Lives here: what goes over HTTP, and what became of it in the ledger and at the agent. Does not live here: privileges and
// races of PostgreSQL itself; those are pg_test/cluster/requests.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const base = process.env.PUBLIC_URL;
const DEADLINE = 30_000;

/** One request; the status and the body, parsed if it is JSON. */
async function http(method, path, body, token = 'operator-token') {
    const answer = await fetch(base + path, {
        method,
        headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
        body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    let parsed = text;
    try { parsed = JSON.parse(text); } catch { /* not JSON: left as it is */ }
    return { status: answer.status, body: parsed, data: parsed?.data, error: parsed?.errors?.[0] };
}

const items = '/items/dot_run_request';
const ask = (body, token) => http('POST', items, body, token);
const admin = (method, path, body) => http(method, path, body, 'admin-token');

/** A value out of the database, as its superuser sees it. */
const sql = (text) => execFileSync(process.env.DOT_PSQL, ['-XqAt', '-c', text], { encoding: 'utf8' }).trim();
/** The requests that the agent has had, by run. */
const calls = (run) => readFileSync(process.env.DOT_RECORD, 'utf8').split('\n').filter((line) => line.includes(run)).length;

/** What a look finds, as soon as it finds something. */
async function eventually(what, look) {
    const end = Date.now() + DEADLINE;
    for (;;) {
        const found = await look();
        if (found) return found;
        assert.ok(Date.now() < end, `it took too long until ${what}`);
        await new Promise((next) => setTimeout(next, 50));
    }
}

/** The row, as soon as it says this. */
const until = (id, status) => eventually(`${id} is ${status}`, async () => {
    const { data } = await http('GET', `${items}/${id}`);
    return data?.run_status === status && data;
});

const tests = [];
const test = (name, body) => tests.push([name, body]);

/** Directus' own roles: one that may ask and look, for its user's own rows; one that may do nothing. */
async function furnish() {
    const user = async (name, permissions) => {
        const policy = await admin('POST', '/policies', { name, app_access: false, admin_access: false });
        for (const permission of permissions) {
            const made = await admin('POST', '/permissions', { policy: policy.data.id, collection: 'dot_run_request', ...permission });
            assert.equal(made.status, 200, JSON.stringify(made.body));
        }
        const role = await admin('POST', '/roles', { name, policies: { create: [{ policy: policy.data.id }] } });
        for (const number of ['', '2']) {
            const token = `${name}${number}-token`;
            const made = await admin('POST', '/users', { email: `${name}${number}@example.com`, role: role.data.id, token });
            assert.equal(made.status, 200, JSON.stringify(made.body));
        }
    };
    await user('operator', [
        // The client says what is to be run; on whose behalf, Directus says.
        { action: 'create', fields: ['id', 'code', 'mode', 'process_run_id', 'args', 'idempotency_key'], presets: { actor: '$CURRENT_USER' } },
        { action: 'read', fields: ['*'], permissions: { actor: { _eq: '$CURRENT_USER' } } },
    ]);
    await user('guest', []);
}

test('Directus sees an ordinary table: args and result are JSON, only code is required', async () => {
    const { data } = await admin('GET', '/fields/dot_run_request');
    const types = Object.fromEntries(data.map((field) => [field.field, field.type]));
    assert.deepEqual([types.id, types.args, types.result, types.requested_at], ['uuid', 'json', 'json', 'timestamp']);
    const required = data.filter((field) => !field.schema.is_nullable && field.schema.default_value === null);
    assert.deepEqual(required.map((field) => field.field), ['code']);
});

test('a POST of a code alone answers with the plan', async () => {
    const { status, data } = await ask({ code: 'DOT-KG-017' });
    assert.equal(status, 200);
    assert.deepEqual([data.mode, data.run_status, data.reason, data.requested_by], ['plan', 'planned', null, 'directus']);
    assert.ok(data.run_id && data.process_run_id && data.finished_at);
    assert.equal(calls(data.run_id), 0);
});

for (const mode of ['verify', 'apply']) {
    test(`a POST of ${mode} answers at once, and GET shows it running, and when it has succeeded`, async () => {
        const { status, data } = await ask({ code: 'DOT-KG-017', mode, args: { scope: 'all', n: 1.50, agent: 'hold' } });
        // Directus reads the row once more after its commit: by then the run may be on its way.
        assert.deepEqual([status, data.finished_at], [200, null]);
        assert.match(data.run_status, /^(queued|running)$/);
        await until(data.id, 'running');
        await eventually('the agent has it', () => calls(data.run_id) === 1);
        await fetch(`${process.env.DOT_AGENT}/control/release`, { method: 'POST' });
        const row = await until(data.id, 'succeeded');
        assert.ok(row.result && row.finished_at);
        assert.deepEqual(row.args, { scope: 'all', n: 1.5, agent: 'hold' });
        assert.equal(calls(data.run_id), 1);
        const ledger = sql(`SELECT source, source_ref = '${data.id}', actor IS NOT NULL, run_status FROM dot_run WHERE run_id = '${data.run_id}'`);
        assert.equal(ledger, 'request|t|t|succeeded');
    });
}

test('a run that fails says why in its row', async () => {
    const { data } = await ask({ code: 'DOT-KG-017', mode: 'apply', args: { agent: 'fail' } });
    const row = await until(data.id, 'failed');
    assert.ok(row.reason && row.message);
});

test('a refusal is a row with the gate\'s reason', async () => {
    const { status, data } = await ask({ code: 'NO-SUCH-TOOL', mode: 'apply' });
    assert.deepEqual([status, data.run_status, data.reason], [200, 'refused', 'uncatalogued']);
    assert.equal(sql(`SELECT run_status FROM dot_run WHERE run_id = '${data.run_id}'`), 'refused');
});

test('misuse is a row too, with what to do in its message', async () => {
    for (const [body, word] of [
        [{ code: 'DOT-KG-017', mode: 'run' }, /unknown mode "run" \(22023\); the modes are plan, verify and apply/],
        [{ code: 'DOT-KG-017', args: [1] }, /args must be a JSON object/],
        [{ code: 'DOT-KG-017', idempotency_key: 'k'.repeat(256) }, /idempotency_key is too long/],
    ]) {
        const { status, data } = await ask(body);
        assert.deepEqual([status, data.run_status, data.reason, data.run_id], [200, 'refused', 'invalid_request', null]);
        assert.match(data.message, word);
    }
});

test('what Directus makes of a raised error: 500, with SQL and without the hint', async () => {
    for (const sqlstate of ['22023', '55000', '42501']) {
        const { status, error } = await http('POST', '/items/raises', { sqlstate }, 'admin-token');
        assert.deepEqual([status, error.extensions.code], [500, 'INTERNAL_SERVER_ERROR']);
        assert.match(error.message, /insert into.*what went wrong/);
        assert.doesNotMatch(JSON.stringify(error), /what to do/);
    }
});

test('a missing code, or a NULL, is a validation error', async () => {
    for (const body of [{ mode: 'plan' }, { code: null }]) {
        const { status, error } = await ask(body);
        assert.deepEqual([status, error.extensions.code, error.extensions.field], [400, 'FAILED_VALIDATION', 'code']);
    }
});

test('the same idempotency key twice is one run, and both rows follow it', async () => {
    const call = { code: 'DOT-KG-017', mode: 'apply', process_run_id: crypto.randomUUID(), idempotency_key: 'nightly' };
    const [first, second] = [await ask(call), await ask(call)];
    assert.notEqual(first.data.id, second.data.id);
    assert.equal(first.data.run_id, second.data.run_id);
    for (const { data } of [first, second]) await until(data.id, 'succeeded');
    assert.equal(calls(first.data.run_id), 1);
    const other = await ask({ ...call, args: { other: true } });
    assert.deepEqual([other.data.run_status, other.data.reason], ['refused', 'invalid_request']);
    assert.match(other.data.message, /in use for a run with other arguments \(23505\)/);
});

test('several requests in one POST', async () => {
    const { status, data } = await ask([{ code: 'DOT-KG-017' }, { code: 'DOT-KG-017', mode: 'run' }, { code: 'NO-SUCH-TOOL' }]);
    assert.equal(status, 200);
    // Directus answers in an order of its own.
    assert.deepEqual(data.map((row) => row.run_status).sort(), ['planned', 'refused', 'refused']);
});

test('an id that is taken makes no run', async () => {
    const { data } = await ask({ code: 'DOT-KG-017' });
    const before = sql('SELECT count(*) FROM dot_run');
    assert.equal((await ask({ id: data.id, code: 'DOT-KG-017' })).status, 500);
    assert.equal(sql('SELECT count(*) FROM dot_run'), before);
});

test('GET by filter', async () => {
    const process_run_id = crypto.randomUUID();
    for (const mode of ['plan', 'plan', 'run']) await ask({ code: 'DOT-KG-017', mode, process_run_id });
    const query = `filter[process_run_id][_eq]=${process_run_id}&filter[run_status][_eq]=planned&fields=id,run_status&sort=-requested_at`;
    const { data } = await http('GET', `${items}?${query}`);
    assert.deepEqual(data.map((row) => row.run_status), ['planned', 'planned']);
});

test('outcome columns cannot be filled in: not through Directus\' permissions, and to no effect without them', async () => {
    const forged = { code: 'NO-SUCH-TOOL', run_status: 'succeeded', requested_by: 'postgres', requested_at: '2020-01-01T00:00:00Z', result: { ok: true } };
    const { status, error } = await ask(forged);
    assert.deepEqual([status, error.extensions.code], [403, 'FORBIDDEN']);
    const { data } = await ask(forged, 'admin-token');
    assert.deepEqual([data.run_status, data.requested_by, data.result], ['refused', 'directus', null]);
    assert.ok(data.requested_at > '2026');
});

test('no PATCH and no DELETE: not for a role of Directus, and not for its administrator', async () => {
    const { data } = await ask({ code: 'DOT-KG-017' });
    for (const [method, body] of [['PATCH', { mode: 'apply' }], ['PATCH', { run_status: 'failed' }], ['DELETE', undefined]]) {
        assert.equal((await http(method, `${items}/${data.id}`, body)).status, 403);
        const { status, error } = await admin(method, `${items}/${data.id}`, body);
        assert.equal(status, 500);
        assert.match(error.message, /permission denied for table dot_run_request/);
    }
    assert.deepEqual((await http('GET', `${items}/${data.id}`)).data, data);
});

test('who granted Directus UPDATE as well is told why a row cannot be changed', async () => {
    const { data } = await ask({ code: 'DOT-KG-017' });
    sql('GRANT UPDATE ON dot_run_request TO directus');
    try {
        const { status, error } = await admin('PATCH', `${items}/${data.id}`, { run_status: 'failed' });
        assert.equal(status, 500);
        assert.match(error.message, /a request cannot be changed/);
    } finally {
        sql('REVOKE UPDATE ON dot_run_request FROM directus');
    }
    assert.equal((await http('GET', `${items}/${data.id}`)).data.run_status, 'planned');
});

test('each user of Directus sees the rows that Directus says are his', async () => {
    const { data } = await ask({ code: 'DOT-KG-017' });
    assert.equal((await http('GET', `${items}/${data.id}`)).status, 200);
    assert.equal((await http('GET', `${items}/${data.id}`, undefined, 'operator2-token')).status, 403);
    assert.deepEqual((await http('GET', items, undefined, 'operator2-token')).data, []);
    const actor = sql(`SELECT r.actor = u.id::text FROM dot_run r, directus.directus_users u
        WHERE r.run_id = '${data.run_id}' AND u.email = 'operator@example.com'`);
    assert.equal(actor, 't');
});

test('without permission there is nothing: another role, nobody, a wrong token', async () => {
    const before = sql('SELECT count(*) FROM dot_run');
    for (const [token, expected] of [['guest-token', 403], [null, 403], ['wrong-token', 401]]) {
        assert.equal((await ask({ code: 'DOT-KG-017', mode: 'apply' }, token)).status, expected);
        assert.equal((await http('GET', items, undefined, token)).status, expected);
    }
    assert.equal(sql('SELECT count(*) FROM dot_run'), before);
});

test('the master toggle is asked for requests as for calls', async () => {
    sql("UPDATE dot_config SET value = 'false' WHERE key = 'iu_core.operator_runtime_enabled'");
    try {
        const { data } = await ask({ code: 'DOT-KG-017', mode: 'apply' });
        assert.deepEqual([data.run_status, data.reason], ['refused', 'toggle_off']);
    } finally {
        sql("UPDATE dot_config SET value = 'true' WHERE key = 'iu_core.operator_runtime_enabled'");
    }
});

test('GraphQL serves it as well', async () => {
    const query = 'mutation { create_dot_run_request_item(data: {code: "DOT-KG-017"}) { run_status run_id } }';
    const { data } = await http('POST', '/graphql', { query });
    assert.equal(data.create_dot_run_request_item.run_status, 'planned');
});

test('Directus\' role of PostgreSQL has INSERT and SELECT on the table, and nothing else of dot_wrapper', async () => {
    const tables = sql(`SELECT string_agg(DISTINCT c.relname || ':' || a.privilege_type, ' ' ORDER BY c.relname || ':' || a.privilege_type)
        FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'dot_wrapper'
        JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass, aclexplode(c.relacl) a
        WHERE d.deptype = 'e' AND a.grantee IN (0, 'directus'::regrole)`);
    assert.equal(tables, 'dot_run_request:INSERT dot_run_request:SELECT');
    const rest = sql(`SELECT count(*) FROM pg_proc f WHERE f.proname LIKE 'fn\\_dot%' AND has_function_privilege('directus', f.oid, 'EXECUTE')`);
    assert.equal(rest, '0');
    assert.equal(sql("SELECT has_schema_privilege('directus', 'dot_wrapper', 'USAGE')"), 'f');
});

let [passed, failed] = [0, 0];
await furnish();
for (const [name, body] of tests) {
    try {
        await body();
        passed += 1;
        console.log(`ok - ${name}`);
    } catch (error) {
        failed += 1;
        console.log(`not ok - ${name}\n${error.stack}`);
    }
}
console.log(`directus: ${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
