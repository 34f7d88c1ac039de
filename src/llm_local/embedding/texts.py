"""From texts to token ids: prompts in front, nothing empty, and nothing cut without a word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from llm_local.embedding.layout import Layout
from llm_local.errors import InvalidRequest

__all__ = ["PreparedTexts", "TextReader", "number_of"]

_HALVES: Final = re.compile("[\ud800-\udfff]")
_AT_ONCE: Final = 512  # texts to tokenize together: enough for the tokenizer's threads


def number_of(index: int) -> str:
    """How a text is called in a message."""
    return f"Text {index + 1}"


@dataclass(frozen=True, slots=True, eq=False)
class PreparedTexts:
    """Texts as the model reads them.

    - `ids`: one array of int32 a text, special tokens and prompt included, each within the window.
    - `left_out`: how many tokens of each did not fit and were cut off, where that was allowed.
    - `num_prompt_tokens`: how many tokens at the beginning of each are read and then not pooled.
    """

    ids: tuple[np.ndarray[Any, Any], ...]
    left_out: tuple[int, ...]
    prompt: str = ""
    num_prompt_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        """All tokens that the model will read, without padding."""
        return sum(len(one) for one in self.ids)


class TextReader:
    """Reads texts with the tokenizer and the prompts of one repository; texts have at most `window` tokens."""

    def __init__(self, tokenizer: Any, layout: Layout, window: int) -> None:
        self._tokenizer = tokenizer
        self._layout = layout
        self._window = window

    def choose_prompt(self, name: str | None, prompt: str | None) -> str:
        """The text to put in front: `prompt` as it is, or the repository's of that name, or its default, or "".

        Raises:
            InvalidRequest: both are given, or there is no prompt of that name.
        """
        if name is not None and prompt is not None:
            raise InvalidRequest("A prompt and the name of a prompt exclude each other.", param="prompt_name")
        if prompt is not None:
            return prompt
        name = self._layout.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self._layout.prompts:
            raise self._no_prompt(name)
        return self._layout.prompts[name]

    def read(
        self, texts: Sequence[str], prompt: str, *, truncate: bool, name_of: Callable[[int], str] = number_of
    ) -> PreparedTexts:
        """The ids of `texts`, each behind `prompt`. `name_of` says what a text is called in a message.

        Raises:
            InvalidRequest: there is no text, one is empty or no text, or one is too long and may not be cut.
        """
        self._check(texts, name_of)
        ids: list[np.ndarray[Any, Any]] = []
        for begin in range(0, len(texts), _AT_ONCE):
            ids += self._encode([prompt + text for text in texts[begin : begin + _AT_ONCE]])
        long = [index for index, one in enumerate(ids) if len(one) > self._window]
        left_out = [0] * len(ids)
        if long and not truncate:
            raise self._too_long(long, ids, name_of)
        for index in long:
            [cut] = self._encode([prompt + texts[index]], max_length=self._window)
            left_out[index] = len(ids[index]) - len(cut)
            ids[index] = cut
        num_prompt = self._prompt_length(prompt)
        none = next((index for index, one in enumerate(ids) if len(one) <= num_prompt), None)
        if none is not None:
            what = "has no token beside its prompt" if num_prompt else "has no tokens"
            raise InvalidRequest(f"{name_of(none)} {what}, so it has no embedding.", param="texts")
        return PreparedTexts(tuple(ids), tuple(left_out), prompt, num_prompt)

    def take(self, texts: Sequence[Sequence[int]], num_ids: int, *, truncate: bool) -> PreparedTexts:
        """Texts that are token ids already, below `num_ids`, with whatever belongs before and behind them.

        Raises:
            InvalidRequest: there is none, one is empty or has no such id, or one is too long and may not be cut.
        """
        if not texts:
            raise InvalidRequest("There is no text to embed.", param="texts")
        for index, ids in enumerate(texts):
            if not ids:
                raise InvalidRequest(f"{number_of(index)} is empty, so it has no embedding.", param="texts")
            wrong = next((one for one in ids if type(one) is not int or not 0 <= one < num_ids), None)
            if wrong is not None:
                raise InvalidRequest(
                    f"{number_of(index)} has {wrong!r}, which is no token id of this model.",
                    f"They go from 0 to {num_ids - 1}.",
                    param="texts",
                )
        arrays = [np.asarray(ids, dtype=np.int32) for ids in texts]
        long = [index for index, one in enumerate(arrays) if len(one) > self._window]
        if long and not truncate:
            raise self._too_long(long, arrays, number_of)
        left_out = tuple(max(0, len(one) - self._window) for one in arrays)
        return PreparedTexts(tuple(one[: self._window] for one in arrays), left_out)

    def _check(self, texts: Sequence[str], name_of: Callable[[int], str]) -> None:
        if isinstance(texts, str):
            raise InvalidRequest("The texts are one text.", "Give a list of texts.", param="texts")
        if not texts:
            raise InvalidRequest("There is no text to embed.", param="texts")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidRequest(f"{name_of(index)} is no text but {type(text).__name__}.", param="texts")
            if not text.strip():
                raise InvalidRequest(f"{name_of(index)} is empty, so it has no embedding.", param="texts")
            if _HALVES.search(text):
                raise InvalidRequest(
                    f"{name_of(index)} is not valid Unicode: it has half of a surrogate pair.", param="texts"
                )

    def _encode(self, texts: list[str], **limits: Any) -> list[np.ndarray[Any, Any]]:
        if self._layout.lower_case:
            texts = [text.lower() for text in texts]
        found = self._tokenizer(
            texts,
            truncation=bool(limits),
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **limits,
        )
        return [np.asarray(ids, dtype=np.int32) for ids in found["input_ids"]]

    def _prompt_length(self, prompt: str) -> int:
        """Tokens to leave out: the prompt with what stands before every text, without what stands behind."""
        pooling = self._layout.pooling
        if not prompt or pooling is None or pooling.include_prompt:
            return 0
        [ids] = self._encode([prompt])
        special = set(self._tokenizer.all_special_ids)
        return len(ids) - (1 if len(ids) and int(ids[-1]) in special else 0)

    def _too_long(
        self, long: list[int], ids: list[np.ndarray[Any, Any]], name_of: Callable[[int], str]
    ) -> InvalidRequest:
        first = long[0]
        more = f" {len(long) - 1} more are too long." if len(long) > 1 else ""
        return InvalidRequest(
            f"{name_of(first)} has {len(ids[first])} tokens, but the model takes {self._window}.{more}",
            "Split it, or let its end be left out with --truncate (truncate=True).",
            param="texts",
            kind="context_length_exceeded",
        )

    def _no_prompt(self, name: str) -> InvalidRequest:
        known = sorted(self._layout.prompts)
        if not known:
            return InvalidRequest(
                f"There is no prompt {name!r}: the model has none.",
                "Give its text with --prompt.",
                param="prompt_name",
            )
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"Did you mean {near[0]}?" if near else f"Its prompts are: {', '.join(known)}."
        return InvalidRequest(f"The model has no prompt {name!r}.", guess, param="prompt_name")
