"""What a run of `llm-local embed` has to say for itself: what was cut, the JSON summary, and the `--verbose` lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llm_local.cli.embed_input import Inputs

if TYPE_CHECKING:
    from llm_local.embedder import EmbedOptions, TextEmbedder
    from llm_local.embedding.texts import PreparedTexts

__all__ = ["Job", "cut", "details", "skipped", "summary"]

_NAMED: Final = 5  # so many texts are named in a line for people


@dataclass(frozen=True, slots=True)
class Job:
    """A model, and what it embeds."""

    embedder: TextEmbedder
    prepared: PreparedTexts
    options: EmbedOptions
    inputs: Inputs

    @property
    def dimensions(self) -> int:
        """How many numbers a vector keeps."""
        return self.options.dimensions or self.embedder.dimensions


def skipped(inputs: Inputs) -> str:
    """One line about the texts that were left out because they are empty, or ""."""
    if not inputs.skipped:
        return ""
    numbers = ", ".join(map(str, inputs.skipped[:_NAMED])) + (", ..." if len(inputs.skipped) > _NAMED else "")
    return f"{_count(len(inputs.skipped), 'empty text')} left out (number {numbers})"


def cut(job: Job) -> list[str]:
    """Lines about prompts that nobody asked for by name, and about texts whose end was left out."""
    told = []
    prepared, layout = job.prepared, job.embedder.layout
    if prepared.prompt and job.options.prompt_name is None and job.options.prompt is None:
        told.append(
            f"Each text has the model's default prompt {layout.default_prompt!r} in front: {prepared.prompt!r}. "
            '--prompt "" takes it away.'
        )
    long = [index for index, left_out in enumerate(prepared.left_out) if left_out]
    if long:
        parts = [
            f"{job.inputs.texts[index].name} ({prepared.left_out[index]} tokens)" for index in long[:_NAMED]
        ]
        more = ", ..." if len(long) > _NAMED else ""
        told.append(
            f"The end of {_count(len(long), 'text')} was left out, {sum(prepared.left_out)} tokens in all: "
            f"{', '.join(parts)}{more}"
        )
    return told


def summary(job: Job, embed_s: float, notices: Sequence[str]) -> dict[str, Any]:
    """Everything but the vectors, for programs."""
    embedder, prepared, info = job.embedder, job.prepared, job.embedder.info
    return {
        "model": info.ref,
        "dimensions": job.dimensions,
        "pooling": embedder.pooling,
        "normalized": embedder.normalized,
        "prompt": prepared.prompt,
        "usage": {"prompt_tokens": prepared.num_tokens, "total_tokens": prepared.num_tokens},
        "truncated": [index for index, left_out in enumerate(prepared.left_out) if left_out],
        "skipped": list(job.inputs.skipped),
        "timings": {"load_s": embedder.load_s, "embed_s": embed_s},
        "architecture": info.architecture,
        "device": info.device,
        "dtype": info.dtype,
        "context_length": info.context_length,
        "notices": list(notices),
    }


def details(job: Job, embed_s: float) -> tuple[str, ...]:
    """For people: what ran, and how fast."""
    embedder, info = job.embedder, job.embedder.info
    scaled = "normalized" if embedder.normalized else "not normalized"
    tokens, texts = job.prepared.num_tokens, len(job.prepared.ids)
    rate = f" ({tokens / embed_s:.0f} tok/s, {texts / embed_s:.1f} texts/s)" if embed_s > 0 else ""
    return (
        f"model: {info.ref} ({info.architecture}, {info.num_parameters:,} parameters), device {info.device}, "
        f"dtype {info.dtype}, texts of at most {info.context_length} tokens, loaded in {embedder.load_s:.2f} s",
        f"vectors: {texts} of {job.dimensions} numbers, pooling {embedder.pooling}, {scaled}",
        f"texts: {tokens} tokens in {embed_s:.3f} s{rate}",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
