"""What a study leaves as files, and what is made of that: the best, the order, tables. No torch, no ray."""
