"""Collections: servers that are handed on together, without their secrets."""
