"""Webhooks: who is told of what happens, and the deliveries until they are done."""
