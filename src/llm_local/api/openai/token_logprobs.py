"""Log-probabilities in OpenAI's two shapes: of chat, and the older one of completions. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any, Final

from llm_local.events import TokenLogprob

__all__ = ["CompletionLogprobs", "TokenBytes", "chat_logprobs", "text_of"]

TokenBytes = Callable[[int], bytes]
"""The bytes of a token, which may be part of a character only."""

# JSON has no infinity; this is what OpenAI sends for a token that cannot come.
LEAST_LOGPROB: Final = -9999.0


def chat_logprobs(logprobs: Sequence[TokenLogprob], token_bytes: TokenBytes) -> dict[str, Any]:
    """The `logprobs` of a chat choice: one entry a token."""
    return {"content": [_entry(one, token_bytes) for one in logprobs], "refusal": None}


class CompletionLogprobs:
    """The `logprobs` of a completion choice, piece by piece.

    `text_offset` counts characters from where the choice's text begins. A token that only goes on with a character has
    the offset of what follows that character's beginning.
    """

    def __init__(self, token_bytes: TokenBytes, *, top: int) -> None:
        self._token_bytes = token_bytes
        self._top = top
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def feed(self, tokens: Sequence[tuple[int, TokenLogprob | None]]) -> dict[str, Any]:
        """The entries of the next tokens. The first token that a model ever sees has no log-probability."""
        offsets = []
        for token_id, _ in tokens:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(self._token_bytes(token_id)))
        alternatives = [_alternatives(found, self._token_bytes) for _, found in tokens]
        return {
            "tokens": [text_of(token_id, self._token_bytes) for token_id, _ in tokens],
            "token_logprobs": [None if found is None else _finite(found.logprob) for _, found in tokens],
            "top_logprobs": alternatives if self._top else None,
            "text_offset": offsets,
        }


def text_of(token_id: int, token_bytes: TokenBytes) -> str:
    """A token as text; parts of characters are replacement characters."""
    return token_bytes(token_id).decode("utf-8", "replace")


def _entry(found: TokenLogprob, token_bytes: TokenBytes) -> dict[str, Any]:
    top = [_token(token_id, logprob, token_bytes) for token_id, logprob in found.top]
    return {**_token(found.token_id, found.logprob, token_bytes), "top_logprobs": top}


def _token(token_id: int, logprob: float, token_bytes: TokenBytes) -> dict[str, Any]:
    return {
        "token": text_of(token_id, token_bytes),
        "logprob": _finite(logprob),
        "bytes": list(token_bytes(token_id)),
    }


def _alternatives(found: TokenLogprob | None, token_bytes: TokenBytes) -> dict[str, float] | None:
    """The likeliest tokens and the one that came; of tokens with the same text the likeliest counts."""
    if found is None:
        return None
    alternatives: dict[str, float] = {}
    for token_id, logprob in (*found.top, (found.token_id, found.logprob)):
        alternatives.setdefault(text_of(token_id, token_bytes), _finite(logprob))
    return alternatives


def _finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
