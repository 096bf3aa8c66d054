"""Organisations and their two spaces; later people and roles."""
