"""Layouts: which rows and columns a table has, and what stands in them."""
