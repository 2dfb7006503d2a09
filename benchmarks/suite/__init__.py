"""Ours beside its peers: `make bench`, or `python -m benchmarks.suite --device cuda`."""
