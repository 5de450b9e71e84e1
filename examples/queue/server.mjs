// Jobs in a database: they survive the end of the process, and whoever asked may come back later.
//   curl localhost:3000/jobs -d '{"prompt": "a red apple"}'    -> {"id": 1}
//   curl localhost:3000/jobs/1                                 -> {"id": 1, "state": "done", …}
//   curl localhost:3000/jobs/1/picture -o apple.png
import { createServer } from "node:http";
import { json } from "node:stream/consumers";
import Database from "libsql"; // better-sqlite3 has the same calls, and so has DatabaseSync of node:sqlite
import { MiroPipeline } from "miro-t2i";

const database = new Database(process.env.DATABASE ?? "jobs.db");
database.exec(`
  CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY, prompt TEXT NOT NULL, seed INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting', error TEXT, picture BLOB
  );
  UPDATE jobs SET state = 'waiting' WHERE state = 'drawing'; -- what the last process did not finish
`);
const add = database.prepare("INSERT INTO jobs (prompt, seed) VALUES (?, ?)");
const show = database.prepare(`
  SELECT json_object('id', id, 'prompt', prompt, 'seed', seed, 'state', state, 'error', error) AS job
  FROM jobs WHERE id = ?
`);
const picture = database.prepare("SELECT picture FROM jobs WHERE id = ? AND state = 'done'");
const take = database.prepare(`
  UPDATE jobs SET state = 'drawing' WHERE id = (SELECT min(id) FROM jobs WHERE state = 'waiting')
  RETURNING id, prompt, seed
`);
const finish = database.prepare("UPDATE jobs SET state = 'done', picture = ? WHERE id = ?");
const fail = database.prepare("UPDATE jobs SET state = 'failed', error = ? WHERE id = ?");

const pipe = await MiroPipeline.fromPretrained(process.env.MODEL, { worker: true });
let working = false;

/** Draws what waits, one job after another. */
async function work() {
  if (working) return;
  working = true;
  for (let job = take.get(); job; job = take.get()) {
    try {
      const { images } = await pipe.generate(job.prompt, { seed: job.seed, steps: 8 });
      finish.run(await images[0].toBuffer(), job.id);
    } catch (error) {
      fail.run(error.message, job.id);
    }
  }
  working = false;
}

const server = createServer(async (request, response) => {
  const answer = (status, body, type = "application/json") =>
    response.writeHead(status, { "content-type": type }).end(type === "image/png" ? body : JSON.stringify(body));
  const [, , id, part] = request.url.split("/");
  if (request.method === "POST" && request.url === "/jobs") {
    const { prompt, seed = 0 } = (await json(request).catch(() => null)) ?? {}; // the JSON null is a body too
    if (typeof prompt !== "string" || !Number.isSafeInteger(seed))
      return answer(400, { error: "expected a prompt and an integer as seed" });
    answer(202, { id: Number(add.run(prompt, seed).lastInsertRowid) });
    return work();
  }
  const found = part === "picture" ? picture.get(id)?.picture : JSON.parse(show.get(id)?.job ?? "null");
  if (!found) return answer(404, { error: "no such job, or no picture yet" });
  answer(200, found, part === "picture" ? "image/png" : undefined);
});
server.listen(Number(process.env.PORT ?? 3000), () => console.log(`http://localhost:${server.address().port}`));
work();
