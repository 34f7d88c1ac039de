"""What both REPLs do between a line that is typed and an answer that is shown."""
