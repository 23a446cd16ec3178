"""The part of the API that SDKs speak: the protocol of Inngest, and this engine's extensions.

Handlers of one subject a module, with the types of their answers; `checkpoint_messages` has those
of checkpoints. `manage` has what people look at.
"""
