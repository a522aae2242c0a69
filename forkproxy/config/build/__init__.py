"""View → frozen slotted dataclasses: what the rest of forkproxy knows of a configuration, one module per extension."""
