"""Floor 1: the loop, connections, TLS, and the contracts of network and listener filters."""
