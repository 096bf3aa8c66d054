"""A hub as a file: read, held against a hub, and applied over its REST API."""
