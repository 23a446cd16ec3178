"""The part of the API that SDKs speak: the protocol of Inngest, and this engine's extensions."""
