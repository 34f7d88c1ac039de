"""How models write tool calls: one module per format, chosen by what a chat template says."""
