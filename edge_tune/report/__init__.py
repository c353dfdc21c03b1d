"""What a study found, as one HTML file: reads results, runs nothing; no torch, no ray."""
