"""A sweep as a terminal shows it."""
