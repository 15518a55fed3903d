"""Figures: the error against time, curves over epochs, and their labels."""
