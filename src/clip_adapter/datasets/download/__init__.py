"""Fetching and checking the paper's data sets."""
