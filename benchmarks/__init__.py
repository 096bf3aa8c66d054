"""How fast the hub is: load generator, upstreams, and the comparison with a direct call."""
