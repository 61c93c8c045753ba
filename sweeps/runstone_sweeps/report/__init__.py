"""A sweep in figures: those of the page, of notebooks, and of the report in one HTML file."""
