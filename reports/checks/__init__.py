"""Checks of printed numbers: where they come from, and if a paper's are current."""
