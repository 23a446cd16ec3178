// The application of apps.py with npm's `inngest`. The engine is found by INNGEST_DEV.

import http from "node:http";
import { Inngest, step } from "inngest";
import { endpointAdapter, serveEndpoint } from "inngest/node";

const client = new Inngest({ id: "benchmark", endpointAdapter });

const order = serveEndpoint(
  client.endpoint(async (request) => {
    const item = new URL(request.url).pathname.split("/")[2];
    const cents = await step.run("price", () => item.length);
    return Response.json(await step.run("reserve", () => ({ item, cents })));
  }),
);

const server = http.createServer(order);
server.listen(0, "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
process.on("SIGINT", () => process.exit(0));
