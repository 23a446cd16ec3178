"""The version, in its one place: hatchling reads it from here, and so does the SDK's header."""

__version__ = "0.1.0.dev0"
"""The version of this package."""
