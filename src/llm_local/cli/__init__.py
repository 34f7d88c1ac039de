"""The `llm-local` command: `main` dispatches, one module per family of verbs."""
