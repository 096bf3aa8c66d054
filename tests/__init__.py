"""Tests, mirroring src/plughub."""
