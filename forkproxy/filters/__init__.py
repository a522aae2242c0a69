"""Floor 4: the extensions. Each is found by name in factory.py and imported only when a configuration names it."""
