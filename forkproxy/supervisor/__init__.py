"""Floor 6: the process that binds, forks, watches and replaces the workers, and touches no traffic."""
