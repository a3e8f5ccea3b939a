"""Evaluation: scores displacement fields on a data set and compares registration methods."""
