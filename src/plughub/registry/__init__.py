"""The registry: what servers there are to install, from the hub's own catalogue, from its organisations and from other registries."""
