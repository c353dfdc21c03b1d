"""What a user may add without a fork, each in one file: an experiment names it as "package.module:name"."""
