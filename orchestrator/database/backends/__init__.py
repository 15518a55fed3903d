"""Code that differs between SQLite and PostgreSQL."""
