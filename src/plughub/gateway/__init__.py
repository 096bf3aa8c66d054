"""Where a caller meets a server: admission, the catalogue of what a caller sees, and the exchange."""
