"""Tools that a model may call: their descriptions, who may let them run, the loop that runs them, and MCP servers."""
