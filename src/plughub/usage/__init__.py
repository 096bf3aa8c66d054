"""Usage: what was called, by whom, how it went; counted from the log of requests, with what is raised over it: flags and alerts."""
