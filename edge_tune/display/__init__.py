"""Records for people while a study runs: lines in a terminal, and TensorBoard."""
