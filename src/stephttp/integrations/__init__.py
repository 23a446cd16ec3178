"""Integrations with other packages, one public module each. No other module imports them."""
