"""What a finished run has to say for itself: the `--verbose` lines and the `--json` object."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_local.errors import LocalLLMError
from llm_local.events import Completion, Timings, ToolResult, Usage
from llm_local.logs import redact
from llm_local.options import BOUNDS, GenerationOptions
from llm_local.runtime.speed import decode_rate, prefill_rate
from llm_local.specs import ModelInfo

__all__ = ["RunReport", "error_object", "joined_replies"]


@dataclass(frozen=True, slots=True)
class RunReport:
    """One answered prompt. `options` are those that were really used; `runs_as` is what computed it.

    With tools, `completion` is all replies together (`joined_replies`), `rounds` are those, and `results` what became
    of the calls.
    """

    completion: Completion
    info: ModelInfo
    runs_as: str
    load_s: float
    options: GenerationOptions
    notices: tuple[str, ...] = ()
    prompt: str | None = None
    """The rendered prompt, when it was asked for."""
    rounds: tuple[Completion, ...] = ()
    results: tuple[ToolResult, ...] = ()

    @property
    def cut_notice(self) -> str:
        """One line when the answer ends before the model ended it, else ""."""
        if self.completion.finish_reason != "length":
            return ""
        last = self.rounds[-1] if self.rounds else self.completion
        usage, window = last.usage, self.info.context_length
        if usage.total_tokens >= window:
            reason = f": the context of {window} tokens is full."
        else:
            reason = "; --max-tokens raises the limit."
        return f"The answer was cut after {usage.completion_tokens} tokens{reason}"

    def lines(self) -> Sequence[str]:
        """For people: what ran, how fast, and what is needed to run it again."""
        usage, timings = self.completion.usage, self.completion.timings
        speeds = _speeds(self.completion, max(1, len(self.rounds)))
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
            *([f"replies: {len(self.rounds)}, calls: {len(self.results)}"] if self.rounds else []),
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
            | _speeds(self.completion, max(1, len(self.rounds))),
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
        if self.rounds:
            report["rounds"] = [_reply_object(one) for one in self.rounds]
            report["tool_calls"] = [_result_object(one) for one in self.results]
        return report

    def _sampling(self) -> dict[str, Any]:
        """What a replay needs: every number, the stop strings, and a bias where there is one."""
        names = [name for name in (*BOUNDS, "stop") if name != "top_logprobs"]
        if self.options.logit_bias:
            names.append("logit_bias")
        if self.options.think != "default":
            names.append("think")
        if self.options.tool_choice != "auto":
            names.append("tool_choice")
        return {name: getattr(self.options, name) for name in names}


def error_object(error: BaseException) -> dict[str, Any]:
    """`{"error": {"kind", "message", "hint"}}` of any failure."""
    if isinstance(error, LocalLLMError):
        return {"error": {"kind": error.kind, "message": redact(error.message), "hint": redact(error.hint)}}
    message = redact(f"{type(error).__name__}: {error}")
    return {"error": {"kind": LocalLLMError.kind, "message": message, "hint": ""}}


def joined_replies(rounds: Sequence[Completion]) -> Completion:
    """The replies of one run as one: what standard output gets of them, and what all of them took together.

    A reply begins on a line of its own. The finish reason is that of the last one.
    """
    text = ""
    for one in rounds:
        text += ("\n" if text and one.text and not text.endswith("\n") else "") + one.text
    return Completion(
        text=text,
        reasoning="\n".join(one.reasoning for one in rounds if one.reasoning),
        tool_calls=tuple(call for one in rounds for call in one.tool_calls),
        token_ids=tuple(token_id for one in rounds for token_id in one.token_ids),
        logprobs=tuple(logprob for one in rounds for logprob in one.logprobs),
        finish_reason=rounds[-1].finish_reason,
        usage=Usage(**_sums([dataclasses.asdict(one.usage) for one in rounds])),
        timings=Timings(
            **_sums([dataclasses.asdict(one.timings) for one in rounds])
            | {"first_token_s": rounds[0].timings.first_token_s}
        ),
    )


def _sums(numbers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: sum(one[name] for one in numbers) for name in numbers[0]}


def _reply_object(reply: Completion) -> dict[str, Any]:
    return {
        "text": reply.text,
        "reasoning": reply.reasoning,
        "finish_reason": reply.finish_reason,
        "tool_calls": [call.id for call in reply.tool_calls],
        "usage": dataclasses.asdict(reply.usage) | {"total_tokens": reply.usage.total_tokens},
        "timings": dataclasses.asdict(reply.timings),
    }


def _result_object(result: ToolResult) -> dict[str, Any]:
    return {
        "id": result.call.id,
        "name": result.call.name,
        "arguments": result.call.arguments,
        "source": result.source,
        "outcome": result.outcome,
        "result": result.text,
        "omitted_chars": result.omitted_chars,
        "run_s": result.run_s,
    }


def _speeds(completion: Completion, num_replies: int) -> dict[str, float | None]:
    """Tokens per second."""
    usage, timings = completion.usage, completion.timings
    return {
        "prefill_tokens_per_s": prefill_rate(usage, timings),
        "decode_tokens_per_s": decode_rate(usage, timings, num_replies),
    }


def _rate(per_second: float | None) -> str:
    return "" if per_second is None else f" ({per_second:.1f} tok/s)"
