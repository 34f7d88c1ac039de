"""One module per family of dialogues. Each offers functions from ``Slots`` to a dialogue or an exchange."""
