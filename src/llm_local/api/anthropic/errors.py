"""Failures in Anthropic's words: `{"type": "error", "error": {"type", "message"}, "request_id"}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from llm_local.api.errors import Envelope, Failure
from llm_local.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound

__all__ = ["REQUEST_ID", "AnthropicEnvelope", "in_anthropic_words", "missing", "unsupported"]

REQUEST_ID: Final = "request-id"
"""The header in which Anthropic's clients look for the id of a request."""

_OVERLOADED: Final = 529
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# Our names of what only shows when the model is there, to Anthropic's.
_NAMES: Final[Mapping[str, str]] = {
    "max_new_tokens": "max_tokens",
    "think": "thinking",
    "max_thinking_tokens": "thinking.budget_tokens",
    "constraint": "output_config.format",
    "stop": "stop_sequences",
    "prompt": "messages",
}


class AnthropicEnvelope(Envelope):
    """How Anthropic words a failure. That there is no room is 529 there."""

    def status(self, failure: Failure) -> int:
        """The HTTP status."""
        return _OVERLOADED if failure.status == 503 else failure.status

    def headers(self, failure: Failure) -> dict[str, str]:
        """The id under the name that clients know."""
        return {REQUEST_ID: failure.request_id}

    def body(self, failure: Failure) -> dict[str, Any]:
        """The JSON object, also that of an `error` event in a stream."""
        usual = "api_error" if failure.status >= 500 else "invalid_request_error"
        told = {"type": _TYPES.get(failure.status, usual), "message": failure.text}
        return {"type": "error", "error": told, "request_id": failure.request_id}


@contextmanager
def in_anthropic_words(model: str) -> Iterator[None]:
    """Reword what the service says about a request: clients read Anthropic's sentences, and know its names only."""
    try:
        yield
    except ModelNotFound as error:
        raise ModelNotFound(f"model: {model}.", error.hint) from error
    except ContextLengthExceeded as error:
        raise InvalidRequest(_overflow(error), param="messages", kind=error.kind) from error
    except InvalidRequest as error:
        if error.param is not None:
            error.hint = "Leave it out." if error.param == "think" else error.hint
            error.param = _NAMES.get(error.param, error.param)
        raise


def missing(param: str) -> InvalidRequest:
    """The error for a field that has to be there, ready to raise."""
    return InvalidRequest(f"{param} is required.", param=param, kind="missing_field")


def unsupported(param: str, hint: str, *, what: str = "") -> InvalidRequest:
    """The error for what would change the answer and cannot be done, ready to raise. `what` says it closer."""
    return InvalidRequest(
        f"{what or param} is not supported.", hint, param=param, kind="unsupported_parameter"
    )


def _overflow(error: ContextLengthExceeded) -> str:
    """Anthropic's own sentence: clients read both numbers out of it, and shorten the conversation by them."""
    most = error.context_length
    if error.prompt_tokens <= most:
        most -= error.reserve  # it would fit, and leave no room for an answer
    return f"prompt is too long: {error.prompt_tokens} tokens > {most} maximum"
