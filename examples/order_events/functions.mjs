// A function of npm's `inngest`, which the same event starts: it thanks the customer.
//
//     npm install && INNGEST_DEV=http://127.0.0.1:8288 PORT=3000 node functions.mjs

import http from "node:http";
import { Inngest } from "inngest";
import { serve } from "inngest/node";

const client = new Inngest({ id: "mail" });

const thank = client.createFunction(
  { id: "thank", triggers: [{ event: "order/placed" }] },
  async ({ event, step }) => {
    const note = await step.run("write", () => `Thank you for ${event.data.item}!`);
    await step.sleep("let it rest", "1s");
    return await step.run("post", () => ({ note, sent: true }));
  },
);

const server = http.createServer(serve({ client, functions: [thank] }));
server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
