"""Floor 5: the process that carries the traffic of one slot."""
