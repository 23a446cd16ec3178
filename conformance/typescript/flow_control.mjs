// Functions with options that decide whether and when a run starts.

const key = "event.data.key";

const plain = {
  batch: { batchEvents: { maxSize: 2, timeout: "1m", key } },
  "batch-late": { batchEvents: { maxSize: 50, timeout: "1s", key } },
  debounced: { debounce: { period: "1s", timeout: "1m", key } },
  limited: { rateLimit: { limit: 1, period: "1m", key } },
  idempotent: { idempotency: "event.data.id" },
};

const singletons = {
  "only-one": { mode: "skip", key },
  newest: { mode: "cancel", key },
};

function numbers({ event, events }) {
  return { n: event.data.n, all: events.map((one) => one.data.n) };
}

export function addTo(client, add) {
  const made = {};
  for (const [id, options] of Object.entries(plain)) made[id] = add(id, numbers, options);

  for (const [id, singleton] of Object.entries(singletons)) {
    add(
      id,
      async (ctx) => {
        const found = await ctx.step.waitForEvent("w", {
          event: `${client.id}/release`,
          match: "data.key",
          timeout: "1m",
        });
        return { released: found !== null, ...numbers(ctx) };
      },
      { singleton },
    );
  }

  add("invoke-limited", async ({ event, step }) => {
    const data = { key: event.data.key, n: 1 };
    const good = await step.invoke("first", { function: made.limited, data });
    try {
      return await step.invoke("second", { function: made.limited, data });
    } catch (error) {
      return { good, error: [error.name, error.message] };
    }
  });

  add("invoke-held", ({ event, step }) =>
    step.invoke("held", { function: made["batch-late"], data: { key: event.data.key, n: 7 } }),
  );
}
