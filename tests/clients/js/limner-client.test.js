// The client against a real server, whose address LIMNER_URL is: the bundles `digits` (classes 0, 2, 1) and `plain`.
// Faults that a real one does not have at will are those of a stand-in on loopback.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, test } from "node:test";

import { ApiError, ClientError, ConnectionFailed, LimnerClient } from "../../../clients/js/limner-client.js";

const url = process.env.LIMNER_URL;
const client = new LimnerClient(url);
const png = [0x89, 0x50, 0x4e, 0x47];
const standIns = [];
after(() => standIns.forEach((server) => server.close()));

/** A server that answers the first request by the first of these, and so on; its address, and what it was asked. */
async function standIn(...answers) {
  const asked = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    asked.push({ at: Date.now(), method: request.method, url: request.url, body });
    answers[Math.min(asked.length, answers.length) - 1](response);
  });
  standIns.push(server);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, asked };
}

const picture = (response) =>
  response.setHeader("X-Limner-Model", "digits@1").setHeader("X-Limner-Seed", "7").end("picture");
const refusal =
  (status, headers = {}, body = "") =>
  (response) =>
    response.writeHead(status, headers).end(body);

test("a picture comes with its bytes, seed, class, model and times", async () => {
  const answer = await client.generate({ model: "digits", label: "2", seed: 7 });
  assert.deepEqual([...answer.bytes.subarray(0, 4)], png);
  assert.equal(answer.type, "image/png");
  assert.equal(answer.blob.type, "image/png");
  assert.deepEqual(new Uint8Array(await answer.blob.arrayBuffer()), answer.bytes);
  assert.deepEqual([answer.seed, answer.label, answer.model, answer.version], ["7", 1, "digits", 1]);
  assert.deepEqual(Object.keys(answer.timing), ["queue", "compute", "encode"]);
  assert.ok(Object.values(answer.timing).every((milliseconds) => milliseconds >= 0));
  assert.equal(answer.batch, 1);
  assert.match(answer.requestId, /./);
});

test("the way between two pictures begins and ends with them", async () => {
  const ends = { model: "digits", fromSeed: 2n ** 60n, toSeed: "8", fromLabel: "2", toLabel: 2, frames: 4 };
  const answer = await client.interpolate({ ...ends, format: "zip" });
  assert.deepEqual([answer.seeds, answer.labels, answer.type], [[String(2n ** 60n), "8"], [1, 2], "application/zip"]);
  const first = await client.generate({ model: "digits", seed: 2n ** 60n, label: "2" });
  assert.ok(Buffer.from(answer.bytes).includes(first.bytes));
  assert.throws(() => answer.link(), /give toLabel as "2"/);
  const gif = await client.interpolate({ model: "digits", frames: 3, loop: true });
  assert.equal(new URL(gif.link()).pathname, "/interpolate");
  const again = await fetch(gif.link({ format: "gif" }));
  assert.deepEqual(new Uint8Array(await again.arrayBuffer()), gif.bytes);
  await assert.rejects(client.interpolate({ model: "digits", frames: 1 }), { status: 422, field: "frames" });
  assert.throws(() => client.link({ fromSeed: 1 }), /without toSeed/);
});

test("a label that is a number is an index, one that is a string first a name", async () => {
  assert.equal((await client.generate({ model: "digits", label: 2 })).label, 2);
  assert.equal((await client.generate({ model: "digits", label: "2" })).label, 1);
});

test("the largest seed arrives exactly, as a string and as a BigInt", async () => {
  const largest = 2n ** 63n - 1n;
  for (const seed of [largest, String(largest)]) {
    assert.equal((await client.generate({ model: "plain", seed })).seed, "9223372036854775807");
  }
  await assert.rejects(client.generate({ model: "plain", seed: 2 ** 53 }), RangeError);
});

test("json holds pictures that are those of their seeds alone", async () => {
  const answer = await client.generate({
    model: "digits",
    n: 3,
    seed: "9223372036854775807",
    format: "json",
    scale: 2,
  });
  const images = answer.images();
  assert.deepEqual(
    images.map(({ seed }) => seed),
    ["9223372036854775807", "0", "1"],
  );
  assert.equal(answer.label, null);
  for (const image of images) {
    assert.equal(["0", "2", "1"][image.label], image.class);
    const alone = await client.generate({ model: "digits", seed: image.seed, scale: 2 });
    assert.deepEqual(image.png, alone.bytes);
  }
  assert.throws(() => new LimnerClient(url).link({}), TypeError);
  await assert.rejects(async () => (await client.generate({ model: "plain" })).images(), TypeError);
});

test("every other parameter reaches the server under its name", async () => {
  const few = { model: "digits", version: 1, n: 2, seed: 3, truncation: 0.5, timeoutMs: 20_000, priority: "low" };
  const answer = await client.generate({ ...few, format: "webp", scale: 3, quality: 60, label: undefined });
  assert.equal(answer.type, "image/webp");
  const { asked, url: there } = await standIn(picture);
  await new LimnerClient(there).generate({ ...few, seed: 2n ** 60n });
  const { timeoutMs, ...same } = few;
  assert.deepEqual(JSON.parse(asked[0].body), { ...same, seed: String(2n ** 60n), timeout_ms: timeoutMs });
});

test("a link gives the same bytes to whoever opens it, and names what answered", async () => {
  const answer = await client.generate({ model: "digits", n: 4, truncation: 0.7, label: "1" });
  const link = new URL(answer.link());
  assert.deepEqual([link.searchParams.get("seed"), link.searchParams.get("version")], [answer.seed, "1"]);
  const response = await fetch(link, { headers: { Accept: "text/html, image/webp, */*;q=0.8" } });
  assert.match(response.headers.get("Cache-Control"), /immutable/);
  assert.deepEqual(new Uint8Array(await response.arrayBuffer()), answer.bytes);
  assert.equal(new URL(answer.link({ scale: 4 })).searchParams.get("scale"), "4");
  assert.equal(
    new LimnerClient("http://a.example/limner?x=1").link({ seed: 1n }),
    "http://a.example/limner/generate?format=png&seed=1",
  );
  assert.throws(() => client.link({ seed: 1, label: 3 }), /give label as "3"/);
});

test("models and readiness are told", async () => {
  const { models } = await client.models();
  assert.deepEqual(models.map(({ name }) => name).sort(), ["digits", "plain"]);
  assert.deepEqual(models.find(({ name }) => name === "digits").versions[0].class_names, ["0", "2", "1"]);
  assert.equal(await client.ready(), true);
});

test("a refusal carries the server's problem details", async () => {
  await assert.rejects(client.generate({ model: "digits", label: "nine" }), (error) => {
    assert.ok(error instanceof ApiError && error instanceof ClientError);
    assert.deepEqual(
      [error.name, error.status, error.code, error.field, error.value],
      ["ApiError", 422, "invalid-parameter", "label", "nine"],
    );
    assert.match(error.allowed, /0/);
    assert.equal(error.message, error.detail);
    return /./.test(error.requestId);
  });
  await assert.rejects(client.generate({ model: "nobody" }), { status: 404, code: "not-found" });
  await assert.rejects(client.generate({ lable: "3", model: "digits" }), { status: 422, field: "lable" });
});

test("where nobody answers that is said, and the server is not ready", async () => {
  const nobody = new LimnerClient("http://127.0.0.1:9", { retries: 0 });
  await assert.rejects(
    nobody.generate(),
    (error) => error instanceof ConnectionFailed && /127\.0\.0\.1:9/.test(error.message),
  );
  assert.equal(await nobody.ready(), false);
  const { url: draining } = await standIn(refusal(503));
  assert.equal(await new LimnerClient(draining).ready(), false);
});

test("an overloaded server is asked again, not before its Retry-After", async () => {
  const full = refusal(429, { "Retry-After": "1" }, '{"type": "urn:limner:problem:queue-full", "detail": "full"}');
  const { asked, url: there } = await standIn(full, refusal(503), picture);
  const told = [];
  const answer = await new LimnerClient(there).generate({}, { onRetry: (again) => told.push(again) });
  assert.equal(new TextDecoder().decode(answer.bytes), "picture");
  assert.equal(asked.length, 3);
  assert.ok(asked[1].at - asked[0].at >= 990);
  assert.deepEqual(
    told.map(({ attempt, error }) => [attempt, error.status, error.code]),
    [
      [1, 429, "queue-full"],
      [2, 503, ""],
    ],
  );
  assert.ok(told[0].seconds >= 1 && told[0].seconds <= 1.1 && told[1].seconds > 0);
});

test("it is not asked again for ever, nor where that is no use", async () => {
  const full = await standIn(refusal(429, {}, '{"detail": "full"}'));
  await assert.rejects(new LimnerClient(full.url, { retries: 1 }).generate(), { status: 429, detail: "full" });
  assert.equal(full.asked.length, 2);
  for (const [status, headers] of [[500], [504], [422], [429, { "Retry-After": "3600" }]]) {
    const { asked, url: there } = await standIn(refusal(status, headers));
    await assert.rejects(new LimnerClient(there).generate(), { status, retryAfter: headers && 3600 });
    assert.equal(asked.length, 1, status);
  }
});

test("Retry-After may be a date", async () => {
  const date = new Date(Date.now() + 100_000).toUTCString();
  const { url: there } = await standIn(refusal(503, { "Retry-After": date }));
  await assert.rejects(new LimnerClient(there).generate(), ({ retryAfter }) => retryAfter > 90 && retryAfter <= 100);
});

test("a body that is shorter than its head says is an error, and is asked for again", async () => {
  const short = (response) => {
    response.writeHead(200, { "Content-Length": "100", "X-Limner-Model": "digits@1" }).write("only this");
    setTimeout(() => response.destroy(), 50);
  };
  const { url: there } = await standIn(short, picture);
  await assert.rejects(new LimnerClient(there, { retries: 0 }).generate(), /broke off/);
  assert.equal((await new LimnerClient(there).generate()).seed, "7");
  const cut = async () =>
    new Response("only this", { headers: { "Content-Length": "100", "X-Limner-Model": "digits@1" } });
  await assert.rejects(new LimnerClient(url, { retries: 0, fetch: cut }).generate(), /after 9 of 100 bytes/);
});

test("an answer that is not a limner server's is an error", async () => {
  const { url: there } = await standIn(refusal(200, {}, "<h1>Welcome</h1>"));
  await assert.rejects(new LimnerClient(there).generate(), /no limner server/);
  await assert.rejects(new LimnerClient(there).models(), /no limner server/);
  const { url: proxy } = await standIn(refusal(404, {}, "<h1>Nothing</h1>"));
  await assert.rejects(new LimnerClient(proxy).models(), { status: 404, code: "", field: undefined });
});

test("an abort ends a call at once: before it, during it, while it waits; of the client as of the call", async () => {
  await assert.rejects(client.generate({}, { signal: AbortSignal.abort() }), { name: "AbortError" });
  const silent = await standIn(() => {});
  const during = new AbortController();
  const asked = new LimnerClient(silent.url, { signal: during.signal }).generate();
  setTimeout(() => during.abort(new Error("enough")), 100);
  await assert.rejects(asked, /enough/);
  const busy = await standIn(refusal(429, { "Retry-After": "50" }));
  const waiting = new AbortController();
  const onRetry = () => setTimeout(() => waiting.abort(), 10);
  await assert.rejects(new LimnerClient(busy.url).generate({}, { signal: waiting.signal, onRetry }), {
    name: "AbortError",
  });
  assert.equal(busy.asked.length, 1);
});
