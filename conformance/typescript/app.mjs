// Durable endpoints written with npm's `inngest`, driven by tests/conformance/test_typescript.py.
// The engine is found by INNGEST_DEV, or by INNGEST_BASE_URL and INNGEST_SIGNING_KEY.

import http from "node:http";
import { Inngest, NonRetriableError, fetch as stepFetch, openai, referenceFunction, step } from "inngest";
import { stream } from "inngest/experimental/durable-endpoints";
import { endpointAdapter, serveEndpoint } from "inngest/node";

const client = new Inngest({ id: "conformance", endpointAdapter });

// How often each step of each test ran: counts["<key>"]["<step>"].
const counts = {};
const releases = {};

function ran(key, name) {
  const mine = (counts[key] ??= {});
  return (mine[name] = (mine[name] ?? 0) + 1);
}

// Runs a step that counts itself; `work` gets how often it ran before, plus one.
function counted(key, id, work = () => id, options = {}) {
  return step.run({ id, ...options }, () => work(ran(key, id)));
}

function failing(message) {
  throw new Error(message);
}

const routes = {};

// The adapter keeps its options until they are set again, and reads them when an endpoint is made.
function endpoint(path, handler, options = {}) {
  endpointAdapter.withOptions({
    // Invoking finds an endpoint by this id, and puts the client's before it.
    functionId: `conformance-${path.slice(1)}`,
    retries: 2,
    asyncResponse: undefined,
    asyncRedirectUrl: undefined,
    ...options,
  });
  const made = client.endpoint(async (request) => {
    const query = new URL(request.url).searchParams;
    ran(query.get("key"), "handler");
    return handler({ key: query.get("key"), query, request });
  });
  routes[path] = serveEndpoint(made);
}

async function sleeping({ key }) {
  const a = await counted(key, "a", () => "hello");
  await step.sleep("zzz", "1s");
  return Response.json({ s: a }, { status: 202 });
}

endpoint("/sync", async ({ key }) => {
  const a = await counted(key, "a", () => ({ x: 1 }));
  const b = await counted(key, "b", () => "two");
  return Response.json({ a, b }, { status: 201, headers: { "x-mine": "yes" } });
});

endpoint("/rated", async ({ key }) => {
  await client.score({ name: "early", value: 0.5 });
  const a = await counted(key, "a", () => client.score({ name: "in-step", value: true }));
  return Response.json({ done: a === undefined || a === null });
});

endpoint("/none", async () => Response.json({ none: true }));

endpoint("/sleep", async ({ key }) => {
  const a = await counted(key, "a", () => "hello");
  await step.sleep("zzz", "1s");
  const b = await counted(key, "b", () => "world");
  const c = await counted(key, "c", () => "!");
  return Response.json({ s: a + b + c }, { status: 202 });
});

endpoint("/plain", async ({ key }) => {
  await step.sleep("zzz", "1s");
  return { s: await counted(key, "a", () => "plain") };
});

endpoint("/parallel", async ({ key }) => {
  const all = await Promise.all([
    counted(key, "p1", () => 1),
    counted(key, "p2", () => 2),
    step.sleep("ps", "1s"),
  ]);
  return Response.json([...all, await counted(key, "after", () => "after")]);
});

endpoint("/chains", async ({ key }) => {
  await step.sleep("first", "1s");
  const one = async () => [await counted(key, "c1"), await counted(key, "c2")];
  const two = async () => {
    const d1 = await counted(key, "d1");
    await step.sleep("ds", "1s");
    return [d1, await counted(key, "d2")];
  };
  return Response.json(await Promise.all([one(), two()]));
});

endpoint("/parallel-flaky", async ({ key }) => {
  const all = await Promise.all([
    counted(key, "good"),
    counted(key, "flaky", (times) => (times < 3 ? failing("not yet") : `after ${times}`)),
    counted(key, "bad", () => failing("always")).catch((error) => error.message),
  ]);
  return Response.json(all);
});

// Both are called at the same time, or neither ever ends.
endpoint("/together", async ({ key }) => {
  const meet = (name, other) => async () => {
    releases[`${key} ${name}`]?.();
    const mine = new Promise((resolve) => (releases[`${key} ${other}`] = resolve));
    if (!counts[key][other]) await mine;
    return name;
  };
  return Response.json(
    await Promise.all([
      counted(key, "left", meet("left", "right")),
      counted(key, "right", meet("right", "left")),
    ]),
  );
});

// The loser ends only when the step after the race has run.
endpoint("/race", async ({ key }) => {
  const options = { parallelMode: "race" };
  const slow = () => new Promise((resolve) => (releases[key] = () => resolve("slow")));
  const winner = await Promise.race([
    counted(key, "fast", () => "fast", options),
    counted(key, "slow", slow, options),
  ]);
  const after = await counted(key, "after", () => releases[key]() ?? "after");
  return Response.json({ winner, after });
});

endpoint("/flaky", async ({ key }) => {
  const value = await counted(key, "flaky", (times) =>
    times < 3 ? failing("not yet") : { times },
  );
  return Response.json(value);
});

endpoint("/caught", async ({ key }) => {
  try {
    await counted(key, "bad", () => failing("always"));
  } catch (error) {
    return Response.json({ name: error.name, m: error.message });
  }
  return Response.json("not reached");
});

endpoint("/fatal-step", async ({ key, query }) => {
  const fatal = () => counted(key, "bad", () => { throw new NonRetriableError("never again"); });
  if (query.get("caught") === null) await fatal();
  try {
    await fatal();
  } catch (error) {
    return Response.json({ name: error.name, m: error.message });
  }
});

endpoint("/throws", async ({ key }) => {
  await counted(key, "a", () => 1);
  throw new Error("handler exploded");
});

endpoint("/throws-once", async ({ key }) => {
  await counted(key, "a", () => 1);
  if (counts[key].handler === 1) throw new Error("handler exploded");
  return Response.json({ handler: "well again" });
});

endpoint("/fatal", async () => {
  throw new NonRetriableError("never again");
});

endpoint("/fatal-later", async () => {
  await step.sleep("zzz", "1s");
  throw new NonRetriableError("never again");
});

endpoint("/wait", async ({ key, query }) => {
  const event = await step.waitForEvent("w", {
    event: "conformance/go",
    if: `async.data.key == '${key}'`,
    timeout: query.get("timeout") ?? "1m",
  });
  return Response.json({ event: event && { name: event.name, data: event.data } });
});

endpoint("/send", async ({ key }) => {
  const sent = await step.sendEvent("s", { name: "conformance/sent", data: { key } });
  return Response.json(sent);
});

endpoint("/send-later", async ({ key }) => {
  await step.sleep("zzz", "1s");
  await step.sendEvent("s", { name: "conformance/go", data: { key: `${key}-other` } });
  return Response.json("sent");
});

endpoint("/target", async ({ key, request }) => {
  const a = await counted(key, "a", () => "invoked");
  return Response.json({ a, method: request.method });
});

endpoint("/target-fails", async () => {
  await step.sleep("zzz", "1s");
  throw new NonRetriableError("never again");
});

endpoint("/invoke", async ({ query }) => {
  try {
    const result = await step.invoke("i", {
      function: referenceFunction({ functionId: query.get("function") }),
      data: { hi: "there" },
      timeout: "1m",
    });
    return Response.json({ result });
  } catch (error) {
    return Response.json({ error: error.message });
  }
});

endpoint("/signal", async ({ key, query }) => {
  const signal = await step.waitForSignal("w", {
    signal: key,
    timeout: query.get("timeout") ?? "1m",
    onConflict: "fail",
  });
  return Response.json({ signal });
});

endpoint("/wait-beside", async ({ key }) => {
  const [event, value] = await Promise.all([
    step.waitForEvent("w", { event: "conformance/go", timeout: "1s" }),
    counted(key, "beside", () => "done"),
  ]);
  return Response.json({ event, value });
});

endpoint("/fetch", async ({ query }) => {
  const response = await stepFetch(query.get("url"), {
    method: "PUT",
    headers: { "x-mine": "yes" },
    body: "text",
  });
  return Response.json({ status: response.status, body: await response.text() });
});

endpoint("/fetch-fails", async ({ query }) => {
  try {
    await stepFetch(query.get("url"));
  } catch (error) {
    return Response.json({ message: error.message });
  }
  return Response.json("not reached");
});

endpoint("/infer", async ({ query }) => {
  try {
    const answer = await step.ai.infer("ask", {
      model: openai({ model: query.get("model"), apiKey: "sk-test", baseUrl: query.get("url") }),
      body: { messages: [{ role: "user", content: "hi" }] },
    });
    return Response.json(answer);
  } catch (error) {
    return Response.json({ error: error.message });
  }
});

endpoint("/token", sleeping, { asyncResponse: "token" });
endpoint("/redirect-path", sleeping, { asyncRedirectUrl: "/poll" });
endpoint("/redirect-function", sleeping, {
  asyncRedirectUrl: async ({ runId, token }) => `https://wait.example.com/${runId}?t=${token}`,
});

endpoint("/stream", async ({ key }) => {
  stream.push("p1");
  const a = await counted(key, "a", () => 1);
  await step.sleep("zzz", "1s");
  const b = await counted(key, "b", () => 2);
  stream.push("p2");
  return Response.json({ a, b }, { status: 202 });
});

endpoint("/stream-fails", async () => {
  stream.push("p1");
  await step.sleep("zzz", "1s");
  throw new Error("too bad");
});

routes["/poll"] = client.endpointProxy();

// What tests ask for.
routes["/counts"] = (request, response) => {
  const key = new URL(request.url, "http://x").searchParams.get("key");
  response.end(JSON.stringify(counts[key] ?? {}));
};

const server = http.createServer((request, response) => {
  const route = routes[new URL(request.url, "http://x").pathname];
  if (route) return route(request, response);
  response.writeHead(404);
  response.end();
});

server.listen(0, "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
