"""Slow, obvious reference implementations: float64 numpy, one loop per sum, no tricks.

Each is written from the formula in the paper, never from the code under test.
"""
