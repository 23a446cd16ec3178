"""OpenTelemetry spans of the code in handlers: read as OTLP, kept with their run."""
