"""OpenAI's dialect: chat completions, completions, embeddings, models and responses under `/v1`."""
