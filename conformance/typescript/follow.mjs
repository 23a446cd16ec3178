// Follows a streaming endpoint with the SDK's own client; prints what arrived, as JSON.

import { fetchWithStream } from "inngest/experimental/durable-endpoints/client";

const data = [];
const response = await fetchWithStream(process.argv[2], { onData: (event) => data.push(event.data) });
console.log(JSON.stringify({ status: response.status, body: await response.text(), data }));
process.exit(0);
