"""The life of a request: first call, re-entries, and what all runs of a provider share."""
