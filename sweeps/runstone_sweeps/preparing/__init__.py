"""Before a sweep runs: a first config for a script, what a config means, and a rehearsal of one trial."""
