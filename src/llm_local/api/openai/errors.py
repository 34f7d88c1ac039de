"""Failures in OpenAI's words: `{"error": {"message", "type", "param", "code"}}`, with OpenAI's own codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from llm_local.api.errors import Envelope, Failure
from llm_local.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound

__all__ = ["OpenAIEnvelope", "in_openai_words", "missing", "unsupported"]

_CODES: Final[Mapping[str, str | None]] = {
    "unauthorized": "invalid_api_key",
    "invalid_json": None,
    "internal_error": None,
    "missing_field": "missing_required_parameter",
    "not_found": "unknown_url",
}
_TYPES: Final[Mapping[int, str]] = {403: "permission_error", 429: "rate_limit_error"}

# Our names of options to OpenAI's, for what only shows when the model is there.
_CHAT: Final[Mapping[str, str]] = {
    "max_new_tokens": "max_tokens",
    "think": "reasoning_effort",
    "constraint": "response_format",
}
_RESPONSES: Final[Mapping[str, str]] = {
    "max_new_tokens": "max_output_tokens",
    "think": "reasoning.effort",
    "constraint": "text.format",
    "messages": "input",
}


class OpenAIEnvelope(Envelope):
    """How OpenAI words a failure."""

    def body(self, failure: Failure) -> dict[str, Any]:
        """The JSON object, all four keys always there."""
        usual = "server_error" if failure.status >= 500 else "invalid_request_error"
        told = {
            "message": failure.text,
            "type": _TYPES.get(failure.status, usual),
            "param": failure.param,
            "code": _CODES.get(failure.kind, failure.kind),
        }
        return {"error": told, "request_id": failure.request_id}


@contextmanager
def in_openai_words(model: str, prompt: str = "messages") -> Iterator[None]:
    """Reword what the service says about a request: clients read OpenAI's sentences, and know its names only.

    `prompt` is the field that holds what the model reads: `messages`, `prompt` or `input`.
    """
    names = _RESPONSES if prompt == "input" else _CHAT
    try:
        yield
    except ModelNotFound as error:
        sentence = f"The model `{model}` does not exist or you do not have access to it."
        raise ModelNotFound(sentence, error.hint) from error
    except ContextLengthExceeded as error:
        raise InvalidRequest(_overflow(error, prompt), param=prompt, kind=error.kind) from error
    except InvalidRequest as error:
        if error.param in ("prompt", "prompt_ids", "texts", "text"):
            error.param = prompt
            if error.kind == "context_length_exceeded":
                error.hint = "Split it into shorter ones."
        elif error.param is not None:
            error.hint = "Leave it out." if error.param == "think" else error.hint
            error.param = names.get(error.param, error.param)
        raise


def missing(param: str) -> InvalidRequest:
    """The error for a field that has to be there, ready to raise."""
    return InvalidRequest(f"Missing required parameter: '{param}'.", param=param, kind="missing_field")


def unsupported(param: str, hint: str, *, what: str = "") -> InvalidRequest:
    """The error for what would change the answer and cannot be done, ready to raise. `what` says it closer."""
    return InvalidRequest(
        f"{what or param} is not supported.", hint, param=param, kind="unsupported_parameter"
    )


def _overflow(error: ContextLengthExceeded, prompt: str) -> str:
    """OpenAI's own sentence: clients read both numbers out of it, and shorten the conversation by them."""
    noun = "prompt" if prompt == "prompt" else "messages"
    sentence = (
        f"This model's maximum context length is {error.context_length} tokens. "
        f"However, your {noun} resulted in {error.prompt_tokens} tokens"
    )
    if error.prompt_tokens < error.context_length:
        sentence += f", and {error.reserve} are needed for the reply"
    return f"{sentence}. Please reduce the length of the {noun}."
