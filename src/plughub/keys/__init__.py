"""API keys: their form, who may make which, and the directory that admission asks."""
