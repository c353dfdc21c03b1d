"""Networks, their images and their weights: read, traced, pruned, retrained, evaluated, exported."""
