"""State that several processes share. This package holds the in-process forms."""
