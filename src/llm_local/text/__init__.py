"""Between text and token ids: templates, fit, detokenizing, stop strings. Sans-I/O."""
