"""OpenTelemetry spans of users' code: reading OTLP, and storing spans with their runs.

How they are shown belongs in `reading`.
"""
