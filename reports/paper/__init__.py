"""Published numbers: comparison with ours, and contradictions among them."""
