"""Projects, their profiles, and what a profile says of the servers in it."""
