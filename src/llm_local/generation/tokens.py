"""Texts to token ids and back, as they are, for those who want to see or count them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from llm_local.errors import InvalidRequest
from llm_local.messages import check_text
from llm_local.specs import ModelInfo
from llm_local.text.templates import RenderedPrompt
from llm_local.text.token_bytes import TokenBytes

__all__ = ["TokenView"]


class TokenView:
    """One model's tokenizer. May be used from several threads."""

    def __init__(self, tokenizer: Any, info: ModelInfo) -> None:
        self._tokenizer = tokenizer
        self._info = info

    @functools.cached_property
    def bytes_of(self) -> TokenBytes:
        """What gives the bytes of a token, which may be part of a character."""
        return TokenBytes(self._tokenizer)

    @functools.cached_property
    def _start_id(self) -> int | None:
        """The token that means the beginning of a text, where there is one."""
        token = self._tokenizer.special_tokens_map.get("bos_token")
        return None if token is None else self._tokenizer.get_vocab().get(str(token))

    def encode(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """Token ids of a text; with `special`, what the tokenizer puts around every text too.

        Raises:
            InvalidRequest: half of a character.
        """
        check_text(text, "text")
        return tuple(self._tokenizer(text, add_special_tokens=special).input_ids)

    def decode(self, token_ids: Sequence[int], *, special: bool = True) -> str:
        """The text that ids stand for; without `special`, control tokens are left out.

        Raises:
            InvalidRequest: an id that the model does not have.
        """
        for token_id in token_ids:
            if type(token_id) is not int or not 0 <= token_id < self._info.vocab_size:
                raise InvalidRequest(
                    f"{token_id!r} is no token id of {self._info.ref}.",
                    f"They go from 0 to {self._info.vocab_size - 1}.",
                    param="prompt",
                )
        text: str = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        return text

    def decoded(self, token_ids: Sequence[int]) -> RenderedPrompt:
        """Ids as a prompt, with its text for people. Raises what `decode` does."""
        return RenderedPrompt(self.decode(token_ids), tuple(token_ids))

    def joined(self, before_ids: Sequence[int], prompt_ids: Sequence[int]) -> RenderedPrompt:
        """A prompt behind ids that went before it, without a second beginning-of-text token.

        Raises:
            InvalidRequest: an id that the model does not have.
        """
        start = self._start_id
        # where the template opens every turn with that token, it does not mean the beginning
        if prompt_ids and prompt_ids[0] == start and list(prompt_ids).count(start) == 1:
            prompt_ids = prompt_ids[1:]
        return self.decoded((*before_ids, *prompt_ids))
