"""The parts of a run, by what they record."""
