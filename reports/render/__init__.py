"""Formats: tables as Markdown, CSV, JSON, LaTeX and HTML."""
