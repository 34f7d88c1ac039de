"""What a finished run has to say for itself: the `--verbose` lines and the `--json` object."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_local.errors import LocalLLMError
from llm_local.events import Completion
from llm_local.logs import redact
from llm_local.options import BOUNDS, GenerationOptions
from llm_local.specs import ModelInfo

__all__ = ["RunReport", "error_object"]


@dataclass(frozen=True, slots=True)
class RunReport:
    """One answered prompt. `options` are those that were really used; `runs_as` is what computed it."""

    completion: Completion
    info: ModelInfo
    runs_as: str
    load_s: float
    options: GenerationOptions
    notices: tuple[str, ...] = ()
    prompt: str | None = None
    """The rendered prompt, when it was asked for."""

    @property
    def cut_notice(self) -> str:
        """One line when the answer ends before the model ended it, else ""."""
        if self.completion.finish_reason != "length":
            return ""
        usage, window = self.completion.usage, self.info.context_length
        if usage.total_tokens >= window:
            reason = f": the context of {window} tokens is full."
        else:
            reason = "; --max-tokens raises the limit."
        return f"The answer was cut after {usage.completion_tokens} tokens{reason}"

    def lines(self) -> Sequence[str]:
        """For people: what ran, how fast, and what is needed to run it again."""
        usage, timings = self.completion.usage, self.completion.timings
        speeds = _speeds(self.completion)
        sampling = ", ".join(f"{name} {value}" for name, value in self._sampling().items())
        guesses = f"guessed ahead: {usage.accepted_tokens} of {usage.drafted_tokens} tokens came true"
        return (
            f"model: {self.info.ref} ({self.info.architecture}, {self.info.num_parameters:,} parameters), "
            f"device {self.info.device}, dtype {self.info.dtype}, quantization {self.info.quantization}, "
            f"{self.runs_as}, loaded in {self.load_s:.2f} s",
            f"prompt: {usage.prompt_tokens} tokens ({usage.cached_tokens} cached), prefill "
            f"{timings.prefill_s:.3f} s{_rate(speeds['prefill_tokens_per_s'])}",
            f"answer: {usage.completion_tokens} tokens, decode {timings.decode_s:.3f} s"
            f"{_rate(speeds['decode_tokens_per_s'])}, first token after {timings.first_token_s:.3f} s",
            *([guesses] if usage.drafted_tokens else []),
            f"finish reason: {self.completion.finish_reason}",
            *([] if self.options.constraint is None else [f"constraint: {self.options.constraint.kind}"]),
            f"options: {sampling}",
        )

    def to_object(self) -> dict[str, Any]:
        """For programs: one JSON-ready object."""
        usage = self.completion.usage
        report: dict[str, Any] = {
            "text": self.completion.text,
            "reasoning": self.completion.reasoning,
            "finish_reason": self.completion.finish_reason,
            "usage": dataclasses.asdict(usage) | {"total_tokens": usage.total_tokens},
            "timings": dataclasses.asdict(self.completion.timings)
            | {"load_s": self.load_s}
            | _speeds(self.completion),
            "model": self.info.ref,
            "device": self.info.device,
            "dtype": self.info.dtype,
            "quantization": self.info.quantization,
            "runs_as": self.runs_as,
            "seed": self.options.seed,
            "options": self._sampling(),
            "notices": [*self.notices, *filter(None, [self.cut_notice])],
        }
        if self.options.constraint is not None:
            report["constraint"] = dataclasses.asdict(self.options.constraint)
        if self.prompt is not None:
            report["prompt"] = self.prompt
        return report

    def _sampling(self) -> dict[str, Any]:
        """What a replay needs: every number, the stop strings, and a bias where there is one."""
        names = [name for name in (*BOUNDS, "stop") if name != "top_logprobs"]
        if self.options.logit_bias:
            names.append("logit_bias")
        if self.options.think != "default":
            names.append("think")
        return {name: getattr(self.options, name) for name in names}


def error_object(error: BaseException) -> dict[str, Any]:
    """`{"error": {"kind", "message", "hint"}}` of any failure."""
    if isinstance(error, LocalLLMError):
        return {"error": {"kind": error.kind, "message": redact(error.message), "hint": redact(error.hint)}}
    message = redact(f"{type(error).__name__}: {error}")
    return {"error": {"kind": LocalLLMError.kind, "message": message, "hint": ""}}


def _speeds(completion: Completion) -> dict[str, float | None]:
    """Tokens per second. The first sampled token belongs to the prefill, so decoding made one fewer."""
    usage, timings = completion.usage, completion.timings
    return {
        "prefill_tokens_per_s": _per_second(usage.prompt_tokens - usage.cached_tokens, timings.prefill_s),
        "decode_tokens_per_s": _per_second(usage.completion_tokens - 1, timings.decode_s),
    }


def _per_second(count: int, seconds: float) -> float | None:
    return round(count / seconds, 2) if count > 0 and seconds > 0 else None


def _rate(per_second: float | None) -> str:
    return "" if per_second is None else f" ({per_second:.1f} tok/s)"
