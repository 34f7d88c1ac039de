"""Conversations that are kept: one SQLite database, its backups, and conversations as JSON and Markdown."""
