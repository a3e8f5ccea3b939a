"""Benchmark: runs registration methods side by side on the pairs of a data set."""
