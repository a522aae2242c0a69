"""Floor 3: clusters, endpoints, load balancing, connection pools, name resolution."""
