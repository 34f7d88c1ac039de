"""Conversations with a model: history, options, slash commands. Values only; nothing here prints."""
