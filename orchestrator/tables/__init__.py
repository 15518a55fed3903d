"""Declared tables: how they are written, and which cells of a grid stand where in them. No line of a report here."""
