"""From a JSON schema, regex, choice or grammar to a token mask. Knows tokenizers, not models."""
