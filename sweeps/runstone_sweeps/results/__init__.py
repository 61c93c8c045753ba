"""What a sweep found, as values and words: nothing here draws or prints."""
