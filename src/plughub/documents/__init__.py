"""Documents: files with versions, the text in them, and what is found in it."""
