// Functions whose data the engine gets encrypted (npm's `@inngest/middleware-encryption`).
// `reads-card` only decrypts. It invokes `finds-card`, which encrypts the results of its steps and
// its own, and invokes `checks-card` with a field that is encrypted.

import { encryptionMiddleware } from "@inngest/middleware-encryption";

// What the engine never sees, but in what `reads-card` returns.
const card = "4242 4242 4242 4242";

const key = "a key of the app";
const encrypts = { middleware: [encryptionMiddleware({ key })] };
const decrypts = { middleware: [encryptionMiddleware({ key, decryptOnly: true })] };

export function addEncrypted(add) {
  const checks = add("checks-card", ({ event }) => ({ checked: event.data.encrypted }), encrypts);

  const finds = add(
    "finds-card",
    async ({ step }) => {
      const found = await step.run("card", () => card);
      const both = await Promise.all([
        step.run("first", () => found.slice(0, 9)),
        step.run("last", () => found.slice(10)),
      ]);
      const data = { encrypted: found };
      return { card: found, both, ...(await step.invoke("check", { function: checks, data })) };
    },
    encrypts,
  );

  add("reads-card", ({ step }) => step.invoke("find", { function: finds }), decrypts);
}
