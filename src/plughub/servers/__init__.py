"""Registered servers: rules, configuration, the directory that calls ask, and live status."""
