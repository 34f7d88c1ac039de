"""llm-local's own dialect: every option under its own name, nothing ignored, every count and second in the answer."""
