"""Which route a request takes, and what the route does to its path, host and headers."""
