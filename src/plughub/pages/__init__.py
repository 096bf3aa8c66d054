"""The HTML door: pages that work without a script, under a policy that lets none run."""
