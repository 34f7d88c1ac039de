"""What every terminal door shares: exit codes, harmless output, progress, prompts from a pipe, signals."""

__all__: list[str] = []
