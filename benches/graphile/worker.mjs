// graphile-worker as make bench runs it: each job of a task is POSTed to the task's path as it is.
//
//   worker.mjs migrate    makes the schema
//   worker.mjs            gets ready, says "ready", waits for a line on its input, works until its input ends
//
// Environment: PGHOST, PGPORT, PGUSER, PGDATABASE; AGENT (http://host:port); TASKS (JSON: task name to path);
// CONCURRENCY, LOCAL_QUEUE (-1: none), COMPLETE_DELAY (ms; -1: off), POOL.
// Why these options: benches/README.md.
import { createInterface } from "node:readline";
import { Logger, run, runMigrations } from "graphile-worker";
import pg from "pg";
import { Pool } from "undici";

const number = (name, otherwise) => Number(process.env[name] ?? otherwise);
const concurrency = number("CONCURRENCY", 64);
const pgPool = new pg.Pool({ max: number("POOL", 10) });
const complain = (error) => console.error(error.message);
pgPool.on("error", complain);
pgPool.on("connect", (client) => client.on("error", complain));

if (process.argv[2] === "migrate") {
  await runMigrations({ pgPool });
  await pgPool.end();
  process.exit(0);
}

const agent = new Pool(process.env.AGENT, { connections: concurrency, pipelining: 1 });
const post = (path) => async (payload, helpers) => {
  const answer = await agent.request({
    path,
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": helpers.job.id },
    body: JSON.stringify(payload),
  });
  const told = await answer.body.json();
  if (answer.statusCode !== 200 || told.status !== "succeeded") throw new Error(`the agent says ${answer.statusCode}`);
};
const tasks = Object.entries(JSON.parse(process.env.TASKS));
const taskList = Object.fromEntries(tasks.map(([name, path]) => [name, post(path)]));

const localQueue = number("LOCAL_QUEUE", 500);
const errors = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(message);
});
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
await pgPool.query("SELECT 1");
console.log("ready");
if ((await lines.next()).done) process.exit(0);

const runner = await run({
  pgPool,
  taskList,
  noHandleSignals: true,
  preset: {
    worker: {
      concurrentJobs: concurrency,
      localQueue: { size: localQueue },
      completeJobBatchDelay: number("COMPLETE_DELAY", 0),
      failJobBatchDelay: number("COMPLETE_DELAY", 0),
      logger: errors,
    },
  },
});
console.log("working");
while (!(await lines.next()).done);
await runner.stop();
await pgPool.end();
process.exit(0);
