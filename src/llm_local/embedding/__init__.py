"""From texts to vectors: what a repository says about it, texts to ids, ids to batches, hidden states to one vector."""
