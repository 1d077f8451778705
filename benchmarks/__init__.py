"""Benchmarks of the project itself, as ratios measured in one run on one machine."""
