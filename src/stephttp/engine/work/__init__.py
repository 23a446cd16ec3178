"""Units of work: each loads, decides by `rules` and saves, in one transaction."""
