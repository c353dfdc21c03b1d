"""From an experiment to a study: which points are tried, where, and what becomes of the trials."""
