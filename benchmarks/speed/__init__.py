"""Ours beside its peers: `make bench`, or `python -m benchmarks.speed --device cuda`."""
