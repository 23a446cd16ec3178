// Listens to a topic with the SDK's own client, publishes to it, and prints what arrived, as JSON.
// Node 20 has its WebSocket behind --experimental-websocket.

import { Inngest } from "inngest";
import { channel, subscribe } from "inngest/realtime";

const client = new Inngest({ id: "conformance" });
const orders = channel({ name: "orders", topics: { paid: {}, sent: {} } });

const token = await client.realtime.token({ channel: orders, topics: ["paid"] });
const messages = await subscribe({ ...token, app: client });
const reader = messages.getReader();

await client.realtime.publish(orders.sent, "not asked for");
await client.realtime.publish(orders.paid, { amount: 7 });
await client.realtime.publish(orders.paid, "text");

// Streams (`datastream-start`) are not tried: 4.24 fails on them, with a ReferenceError of its own.
const heard = [];
while (heard.length < 2) {
  const { channel, topic, kind, data } = (await reader.read()).value;
  heard.push({ channel, topic, kind, data });
}
console.log(JSON.stringify(heard));
process.exit(0);
