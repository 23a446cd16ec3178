"""The checkpoint API, seen from an application: requests, retries, delivery in the background."""
