"""Everything that makes the starter model: corpus, tokenizer, training, evaluation, model card."""
