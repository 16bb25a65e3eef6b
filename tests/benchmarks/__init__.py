"""Benchmarks: `make bench` prints ratios to baselines that are measured in the same run, side by side."""
