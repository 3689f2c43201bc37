"""Speed, as ratios to peers that run in turn in the same run: ``python -m benchmarks``."""
