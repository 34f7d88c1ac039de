"""The room behind `llm_local.config`: what a setting is, where values come from, and the pages made of them."""
