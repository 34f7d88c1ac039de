"""What a tokenizer makes of texts, as it is: prompts behind what went before them."""

from __future__ import annotations

import pytest

from fakes import ByteTokenizer
from llm_local.errors import InvalidRequest
from llm_local.generation.tokens import TokenView
from llm_local.specs import ModelInfo

INFO = ModelInfo("fake", "/x", "llama", 10, 20, "float32", "cpu", 512, 257, has_chat_template=True)


class StartTokenizer(ByteTokenizer):
    """One whose texts begin with the byte `^`."""

    special_tokens_map = {"bos_token": str(ord("^"))}


def ids(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def test_a_prompt_goes_on_behind_ids() -> None:
    found = TokenView(ByteTokenizer(), INFO).joined((*ids("^one"), 256), ids("two"))
    assert found.token_ids == (*ids("^one"), 256, *ids("two")) and found.text == "^onetwo"


def test_the_beginning_of_a_text_comes_once() -> None:
    view = TokenView(StartTokenizer(), INFO)
    assert view.joined(ids("^one"), ids("^two")).token_ids == ids("^onetwo")
    # here it opens every turn, and is not the beginning alone
    assert view.joined(ids("^one"), ids("^two^")).token_ids == ids("^one^two^")
    assert view.joined(ids("^one"), ()).token_ids == ids("^one")


def test_ids_that_the_model_does_not_have_are_refused() -> None:
    for wrong in (257, -1, True):
        with pytest.raises(InvalidRequest, match="no token id"):
            TokenView(ByteTokenizer(), INFO).joined((wrong,), ids("x"))
