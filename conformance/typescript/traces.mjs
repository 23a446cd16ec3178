// An endpoint whose steps make OpenTelemetry spans, sent by npm's `inngest` itself; driven by
// tests/conformance/test_typescript_traces.py. What the SDK needs is in its own dependencies.

import http from "node:http";
import { context, trace } from "@opentelemetry/api";
import { AsyncHooksContextManager } from "@opentelemetry/context-async-hooks";
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";
import { Inngest, step } from "inngest";
import { extendedTracesMiddleware } from "inngest/experimental";
import { endpointAdapter, serveEndpoint } from "inngest/node";

context.setGlobalContextManager(new AsyncHooksContextManager().enable());
trace.setGlobalTracerProvider(new BasicTracerProvider());

const client = new Inngest({
  id: "traces",
  endpointAdapter,
  middleware: [extendedTracesMiddleware({ behaviour: "extendProvider" })],
});
const tracer = trace.getTracer("shop.db");

function query() {
  return tracer.startActiveSpan("query", (span) => {
    span.setAttribute("rows", 3);
    span.end();
    return 3;
  });
}

endpointAdapter.withOptions({ functionId: "traces-rows" });
const rows = serveEndpoint(
  client.endpoint(async () => {
    // Spans are made when the server calls again, not in the first request.
    await step.sleep("nap", "1s");
    return Response.json({ rows: await step.run("load", query) });
  }),
);

const server = http.createServer(rows);
server.listen(0, "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
