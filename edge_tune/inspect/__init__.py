"""What of a network can be removed, what that costs and saves, and an experiment that searches it."""
