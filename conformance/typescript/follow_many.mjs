// Follows an endpoint with the SDK's own client, many times, each request a while late; prints what
// each of them got, as JSON: `node follow_many.mjs <url> <times> <milliseconds>`.

import { fetchWithStream } from "inngest/experimental/durable-endpoints/client";

const [url, times, late] = process.argv.slice(2);

async function follow(number) {
  const got = [];
  let redirect;
  const distant = async (address, options) => {
    await new Promise((resolve) => setTimeout(resolve, Number(late)));
    if (/\/v1\/realtime\/sse|[?&]events=inngest/.test(String(address))) redirect = String(address);
    return fetch(address, options);
  };
  const response = await fetchWithStream(url.replace("KEY", number), {
    fetch: distant,
    onMetadata: () => got.push("metadata"),
    onData: ({ data, hashedStepId }) => got.push([data, hashedStepId]),
    onCommit: ({ hashedStepId }) => got.push(["commit", hashedStepId]),
    onRollback: ({ hashedStepId }) => got.push(["rollback", hashedStepId]),
  });
  const headers = Object.fromEntries(response.headers);
  const told = { got, status: response.status, body: await response.text(), headers, redirect };
  if (redirect) {
    // One who comes after the end, from the beginning.
    const data = [];
    const again = await fetchWithStream(redirect.replace(/&after=\d+/, ""), {
      onData: (event) => data.push(event.data),
    });
    told.late = { data, status: again.status, body: await again.text() };
  }
  return told;
}

const all = [];
let next = 0;
const worker = async () => {
  while (next < Number(times)) {
    const number = next++;
    all[number] = await follow(number);
  }
};
await Promise.all(Array.from({ length: 20 }, worker));
process.stdout.write(JSON.stringify(all), () => process.exit(0));
