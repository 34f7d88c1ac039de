"""What a chat says about an answer, in a line each: how fast it came, why it ends, what was left out of the prompt."""

from __future__ import annotations

from llm_local.events import Completion, ContextTrimmed
from llm_local.runtime.speed import decode_rate

__all__ = ["end_note", "statistics_line", "tokens_per_second", "trimmed_line"]


def tokens_per_second(completion: Completion) -> float | None:
    """How fast the answer was decoded, or None where there is nothing to tell it from."""
    return decode_rate(completion.usage, completion.timings)


def statistics_line(completion: Completion) -> str:
    """Tokens per second, what was read and what of it was cached, and the times."""
    usage, timings = completion.usage, completion.timings
    speed = tokens_per_second(completion)
    parts = [
        f"{usage.completion_tokens} tokens in {timings.decode_s:.2f} s"
        + ("" if speed is None else f" ({speed:.1f} tok/s)"),
        f"prompt {usage.prompt_tokens} tokens, {usage.cached_tokens} of them cached, read in {timings.prefill_s:.2f} s",
        f"first token after {timings.first_token_s:.2f} s",
    ]
    if usage.drafted_tokens:
        parts.append(f"{usage.accepted_tokens} of {usage.drafted_tokens} guessed tokens came true")
    return "; ".join(parts)


def end_note(completion: Completion) -> str:
    """One line when the answer ends before the model ended it, else ""."""
    count = completion.usage.completion_tokens
    if completion.finish_reason == "cancelled":
        return "stopped here; what came is kept" if completion.text or completion.reasoning else "stopped"
    if completion.finish_reason == "length":
        return f"cut here after {count} tokens: the limit of the answer, or of the context, is reached"
    return ""


def trimmed_line(event: ContextTrimmed) -> str:
    """What the model does not see any more."""
    number = "1 message" if event.num_messages == 1 else f"{event.num_messages} messages"
    was = "was" if event.num_messages == 1 else "were"
    return (
        f"The conversation does not fit the context any more: its oldest {number} ({event.num_tokens} tokens) {was} "
        "left out of the prompt."
    )
