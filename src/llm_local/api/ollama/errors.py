"""Failures in Ollama's words: `{"error": text}`, and the sentences that its clients look for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel

from llm_local.api.bodies import EmptyBody, read_body
from llm_local.api.errors import Envelope, Failure
from llm_local.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound, UnsupportedTask

__all__ = ["OllamaEnvelope", "in_ollama_words", "lacks", "read_request"]

Body = TypeVar("Body", bound=BaseModel)


class OllamaEnvelope(Envelope):
    """How Ollama words a failure; `hint` is there where its own words leave out what to do."""

    def body(self, failure: Failure) -> dict[str, Any]:
        """The JSON object."""
        if isinstance(failure.error, ModelNotFound):
            told = (
                {"error": failure.message, "hint": failure.hint}
                if failure.hint
                else {"error": failure.message}
            )
        else:
            told = {"error": failure.text}
        return {**told, "request_id": failure.request_id}


@contextmanager
def in_ollama_words(model: str, task: str = "generate") -> Iterator[None]:
    """Reword what the service says about a request for `model`, in the name it was asked for by."""
    try:
        yield
    except ModelNotFound as error:
        raise ModelNotFound(f"model '{model}' not found", str(error)) from error
    except ContextLengthExceeded as error:
        raise InvalidRequest(
            f"the input length exceeds the context length ({error.prompt_tokens} tokens and {error.reserve} for the "
            f"reply, of {error.context_length})",
            param=error.param,
            kind=error.kind,
        ) from error
    except UnsupportedTask as error:
        raise lacks(model, task, "model", str(error)) from error
    except InvalidRequest as error:
        if error.kind != ContextLengthExceeded.kind:
            raise
        message = f"the input length exceeds the context length: {error.message}"
        raise InvalidRequest(message, error.hint, param=error.param, kind=error.kind) from error


def lacks(model: str, ability: str, param: str, hint: str = "") -> InvalidRequest:
    """The error for what a model cannot do, ready to raise; Ollama's clients know its sentence."""
    text = f'"{model}" does not support {ability}'
    return InvalidRequest(f"{text}." if hint else text, hint, param=param, kind=UnsupportedTask.kind)


async def read_request(request: Request, model: type[Body]) -> Body:
    """The body of a request. Raises InvalidRequest where it is not what `model` allows."""
    try:
        return await read_body(request, model)
    except EmptyBody as error:
        raise InvalidRequest("missing request body", kind=error.kind) from None
