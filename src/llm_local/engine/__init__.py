"""The engine: token ids in, token ids out. Many sequences share each forward pass."""
