// Functions written with npm's `inngest`, driven by tests/conformance/test_typescript_functions.py:
// one app whose functions checkpoint their steps during a call, which is the SDK's default, and one
// whose functions do not. The engine is found by INNGEST_DEV. PORT is where it listens. CRON has
// the times of a further function; without it there is none.

import http from "node:http";
import { Inngest, NonRetriableError, RetryAfterError, referenceFunction } from "inngest";
import { metadataMiddleware, scoreMiddleware } from "inngest/experimental";
import { serve } from "inngest/node";
import { addEncrypted } from "./encryption.mjs";
import { addTo } from "./flow_control.mjs";

// How often each step of each test ran: counts["<key>"]["<step>"].
const counts = {};

function ran(event, name) {
  const mine = (counts[event.data.key] ??= {});
  return (mine[name] = (mine[name] ?? 0) + 1);
}

// Steps that run now, by test.
const running = {};

// Work for a while, and count how many did so at the same time at most.
async function underWay({ data: { key } }, work) {
  const mine = (counts[key] ??= {});
  running[key] = (running[key] ?? 0) + 1;
  mine.most = Math.max(mine.most ?? 0, running[key]);
  await new Promise((resolve) => setTimeout(resolve, 20));
  running[key] -= 1;
  return work();
}

function failing(message) {
  throw new Error(message);
}

function functionsOf(client) {
  const made = [];
  const add = (id, handler, { triggers = [{ event: `${client.id}/${id}` }], ...options } = {}) => {
    made.push(client.createFunction({ id, retries: 1, triggers, ...options }, handler));
    return made.at(-1);
  };

  add("steps", async ({ event, step, runId }) => {
    ran(event, "handler");
    const a = await step.run("a", () => ({ x: ran(event, "a") }));
    const b = await step.run("b", () => "two");
    return { a, b, run: runId, event: event.name };
  });

  add("parallel", async ({ event, step }) => {
    const all = await Promise.all([
      step.run("p1", () => ran(event, "p1")),
      step.run("p2", () => ({ n: ran(event, "p2") })),
      step.sleep("nap", "1s"),
    ]);
    return [...all, await step.run("after", () => ran(event, "after"))];
  });

  add("wait", async ({ step }) => {
    const found = await step.waitForEvent("w", {
      event: `${client.id}/answer`,
      match: "data.key",
      timeout: "1m",
    });
    const late = await step.waitForEvent("late", { event: "conf/never", timeout: "1s" });
    return { found: found?.data, late };
  });

  // A parallel group in the mode of races: a branch continues while another one waits.
  add("race", async ({ event, step, group }) => {
    const quick = async () => {
      const first = await step.run("quick", () => ran(event, "quick"));
      return first + (await step.run("further", () => ran(event, "further")));
    };
    const slow = () =>
      step.waitForEvent("slow", { event: `${client.id}/on`, match: "data.key", timeout: "1m" });
    return group.parallel({ mode: "race" }, () => Promise.race([quick(), slow()]));
  });

  // Without that mode, the handler continues once all steps of the group have ended.
  add("settled", async ({ event, step }) => {
    const slow = step.waitForEvent("slow", {
      event: `${client.id}/on`,
      match: "data.key",
      timeout: "1m",
    });
    const quick = step.run("quick", () => ran(event, "quick"));
    const first = await Promise.race([slow.then(() => "slow"), quick.then(() => "quick")]);
    return [first, await step.run("after", () => ran(event, "after"))];
  });

  const child = add("child", async ({ event, step }) => {
    if (event.data.fail) throw new NonRetriableError("the child failed");
    if (event.data.hang) await step.sleep("long", "1h");
    return { doubled: event.data.n * 2, name: event.name };
  });

  add("invoke", async ({ step }) => {
    const good = await step.invoke("good", { function: child, data: { n: 21 } });
    const failures = {
      bad: { function: child, data: { fail: true } },
      late: { function: child, data: { hang: true }, timeout: "1s" },
      none: { function: referenceFunction({ functionId: "no-such-function" }) },
    };
    const errors = {};
    for (const [id, options] of Object.entries(failures)) {
      await step.invoke(id, options).catch((error) => {
        errors[id] = [error.name, error.message];
      });
    }
    return { good, errors };
  });

  add("send", async ({ event, step }) => {
    const data = { key: event.data.key };
    const { ids } = await step.sendEvent("send", [{ name: `${client.id}/sent`, data }]);
    return ids;
  });

  add("sent", async ({ event }) => ran(event, "sent"));

  add("retry", async ({ event, step, attempt }) => {
    const flaky = await step.run("flaky", () =>
      ran(event, "try") > 1 ? ran(event, "flaky") : failing("not yet"),
    );
    return { flaky, attempt };
  });

  add("caught", async ({ step }) => {
    try {
      await step.run("bad", () => {
        throw new NonRetriableError("gives up");
      });
    } catch (error) {
      return error.message;
    }
  });

  add("handler-fails", async ({ event }) => failing(`attempt ${ran(event, "handler")}`));

  add("final", async ({ event }) => {
    ran(event, "handler");
    throw new NonRetriableError("for good");
  });

  add("later", async ({ event, attempt }) => {
    if (ran(event, "handler") === 1) throw new RetryAfterError("later", "1s");
    return attempt;
  });

  add("picky", async ({ event }) => event.data.n, {
    triggers: [{ event: `${client.id}/picky`, if: "event.data.n > 3" }],
  });

  const onFailure = async ({ event, error, step }) =>
    step.run("rescue", () => {
      const failed = event.data;
      ran(failed.event, `${failed.function_id}: ${error.message}`);
      return failed.run_id;
    });

  add("fragile", async () => failing("it broke"), { retries: 0, onFailure });

  add("stoppable", async ({ step }) => step.sleep("long", "1h"), {
    cancelOn: [{ event: `${client.id}/stop`, match: "data.key" }],
  });

  add("slow", async ({ step }) => step.sleep("long", "1h"), {
    timeouts: { start: "1h", finish: "1s" },
  });

  add(
    "bounded",
    ({ event, step }) => step.run("work", () => underWay(event, () => ran(event, "work"))),
    { concurrency: [{ limit: 2, key: "event.data.key" }] },
  );

  add("paced", async () => Date.now() / 1000, {
    throttle: { limit: 1, period: "1s", key: "event.data.key" },
  });

  add("big", async ({ events, step }) => {
    let size = 0;
    for (let n = 0; n < 7; n++) {
      size += (await step.run(`part-${n}`, () => "x".repeat(700_000))).length;
    }
    await step.sleep("nap", "1s");
    return { size, events: events.length };
  });

  addTo(client, add);
  addEncrypted(add);

  add("rated", async ({ event, step, runId }) => {
    await step.run("pack", () => client.metadata.set({ boxes: 2 }));
    await step.metadata("note").run().set({ state: "packed" }, "state");
    await step.score("rate", { name: "good", value: true });
    await client.score({ runId, name: "fit", value: 0.5 });
    await client.metadata.run(runId).step("pack").set({ later: 1 }, "late");
    return event.meta;
  });

  add("in-session", async ({ step }) => {
    const done = await step.invoke("child", { function: heir, data: {} });
    const { ids } = await step.sendEvent("go", { name: `${client.id}/heir`, data: {} });
    return { done, ids };
  });

  const heir = add("heir", async ({ event, sessions }) => [event.meta?.sessions, sessions]);

  if (process.env.CRON) {
    add("timed", async ({ event }) => [event.name, event.data, event.ts], {
      triggers: [{ cron: process.env.CRON, jitter: "100ms" }],
    });
  }

  return made;
}

const routes = {};
for (const [id, options] of [
  ["checkpointed", {}],
  ["plain", { checkpointing: false }],
]) {
  const middleware = [metadataMiddleware, scoreMiddleware].map((make) => make());
  const client = new Inngest({ id, middleware, ...options });
  const servePath = `/${id}/api/inngest`;
  routes[servePath] = serve({ client, functions: functionsOf(client), servePath });
}

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

server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
