"""A fast tokenizer as transformers made it once, kept as data: the next start needs no transformers for it.

What transformers makes of a model's files depends on the class they name, on converters and on patches. All of that is
in the state of the Rust tokenizer behind it, which can be written down whole; the little that is Python around it is
here. A tokenizer whose class does more than that is not kept.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer

__all__ = ["SavedTokenizer", "saved_state"]

# What a tokenizer's class must not have changed, since SavedTokenizer does what the plain class does.
_PLAIN: Final = (
    "__call__",
    "_encode_plus",
    "added_tokens_decoder",
    "backend_tokenizer",
    "decode",
    "_decode",
    "get_vocab",
    "special_tokens_map",
)
# Texts that tokenizers disagree about: spaces at either end, digits, accents, several scripts, half of an emoji.
_SAMPLES: Final = (
    "Hello, world! It's 12345.67 degrees.",
    "  two  spaces \n\n\ttabs\r\nand lines ",
    "Grüße aus Zürich, naïve café; Ελληνικά, русский, العربية, 日本語, 한국어 👩‍👩‍👧 e\u0301",
    "def f(x):\n    return {'a': [1, 2]}  # <|im_start|> <s> </s> [INST]",
    "",
)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """What calling a tokenizer gives."""

    input_ids: list[int]


class SavedTokenizer:
    """The part of a transformers tokenizer that text needs, over the same Rust tokenizer. Threads may share it."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.backend_tokenizer = Tokenizer.from_str(state["backend"])
        self.backend_tokenizer.no_padding()  # as every call for a single text does
        self.backend_tokenizer.no_truncation()
        self.chat_template: str | dict[str, str] | None = state["chat_template"]
        self.chat_control_tokens: list[str] | None = state["chat_control_tokens"]
        self.special_tokens_map: dict[str, str] = state["special_tokens_map"]
        self.eos_token_id: int | None = state["eos_token_id"]
        self._split_special_tokens: bool = state["split_special_tokens"]
        self.backend_tokenizer.encode_special_tokens = self._split_special_tokens
        self._other: Tokenizer | None = None
        self._making_other = threading.Lock()

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool | None = None
    ) -> _Encoded:
        """Token ids of a text. `split_special_tokens`: a special token in it is the characters it is made of."""
        usual = split_special_tokens is None or split_special_tokens == self._split_special_tokens
        backend = self.backend_tokenizer if usual else self._other_backend()
        # A batch of one, since that lets go of the interpreter's lock: encode() stops all threads for seconds.
        [encoded] = backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return _Encoded(encoded.ids)

    def decode(
        self,
        token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        """The text of `token_ids`.

        Raises:
            ValueError: spaces are to be cleaned up, which would not be the text that the ids are.
        """
        if clean_up_tokenization_spaces:
            raise ValueError("spaces are never cleaned up here")
        # A batch, as above.
        [text] = self.backend_tokenizer.decode_batch(
            [list(token_ids)], skip_special_tokens=skip_special_tokens
        )
        return str(text)

    def get_vocab(self) -> dict[str, int]:
        """All tokens and their ids, added ones too."""
        vocab: dict[str, int] = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return vocab

    def _other_backend(self) -> Tokenizer:
        """One that treats special tokens the other way: the switch is the Rust tokenizer's, which threads share."""
        with self._making_other:
            if self._other is None:
                self._other = Tokenizer.from_str(self.backend_tokenizer.to_str())
                self._other.encode_special_tokens = not self._split_special_tokens
            return self._other

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that were added to the vocabulary, by id."""
        added: dict[int, AddedToken] = self.backend_tokenizer.get_added_tokens_decoder()
        return added


def saved_state(tokenizer: Any) -> dict[str, Any] | None:
    """What `SavedTokenizer` is made of, as JSON; None when it would not be the same tokenizer."""
    # Late: whoever has such a tokenizer has imported it, and a quick start never does.
    from transformers import PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    if any(getattr(type(tokenizer), name) is not getattr(PreTrainedTokenizerFast, name) for name in _PLAIN):
        return None
    state = {
        "backend": tokenizer.backend_tokenizer.to_str(),
        "chat_template": tokenizer.chat_template,
        "chat_control_tokens": getattr(tokenizer, "chat_control_tokens", None),
        "special_tokens_map": dict(tokenizer.special_tokens_map),
        "eos_token_id": tokenizer.eos_token_id,
        "split_special_tokens": bool(tokenizer.split_special_tokens),
    }
    return state if _same(SavedTokenizer(state), tokenizer) else None


def _same(saved: SavedTokenizer, tokenizer: Any) -> bool:
    """Whether both do the same with some difficult texts, and have the same tokens."""
    if saved.get_vocab() != tokenizer.get_vocab():
        return False
    ours, theirs = saved.added_tokens_decoder, tokenizer.added_tokens_decoder
    if [(key, str(one), one.special) for key, one in sorted(ours.items())] != [
        (key, str(one), one.special) for key, one in sorted(theirs.items())
    ]:
        return False
    for text in (*_SAMPLES, *map(str, list(theirs.values())[:8])):
        for options in ({}, {"add_special_tokens": False}, {"split_special_tokens": True}):
            ids = _outcome(tokenizer, text, options)
            if _outcome(saved, text, options) != ids:
                return False
            if isinstance(ids, str):
                continue
            for skip in (True, False):
                how = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": False}
                if saved.decode(ids, **how) != tokenizer.decode(ids, **how):
                    return False
    tokenizer("")  # leaves the switch for special tokens as every plain call does
    return True


def _outcome(tokenizer: Any, text: str, options: Mapping[str, bool]) -> list[int] | str:
    """Ids, or why there are none: a vocabulary may have no token for what it does not know."""
    try:
        ids: list[int] = tokenizer(text, **options).input_ids
    except Exception as error:  # the Rust library raises nothing narrower
        return str(error)
    return ids
