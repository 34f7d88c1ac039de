"""From dialogues to token ids, and which of these ids the model learns to say."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from .dialogue import Dialogue
from .tokenizer import END, START


@dataclass(frozen=True)
class Row:
    """Token ids of one conversation; ``learned[i]`` says whether id ``i`` is one the assistant has to produce."""

    ids: list[int]
    learned: list[bool]

    def last_turn(self) -> int:
        """The position of the first id of the last assistant turn."""
        position = max(index for index, learned in enumerate(self.learned) if learned)
        while self.learned[position - 1]:
            position -= 1
        return position


class Renderer:
    """Renders with the chat template that ships with the model, so training and inference cannot differ."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self.start = tokenizer.convert_tokens_to_ids(START)
        self.end = tokenizer.convert_tokens_to_ids(END)
        self._header = tokenizer.encode(f"{START}assistant\n", add_special_tokens=False)

    def text(self, dialogue: Dialogue, prompt_only: bool = False) -> str:
        """The rendered conversation, or the prompt that the last assistant turn would be generated from."""
        messages = dialogue.messages[:-1] if prompt_only else dialogue.messages
        return self._tokenizer.apply_chat_template(
            messages, tools=dialogue.tools or None, tokenize=False, add_generation_prompt=prompt_only
        )

    def ids(self, text: str) -> list[int]:
        """Token ids of rendered text."""
        return self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def row(self, dialogue: Dialogue) -> Row:
        """The whole conversation, tokenized once; the assistant turns with their end tokens are learned."""
        ids = self.ids(self.text(dialogue))
        return Row(ids, self.learned(ids))

    def learned(self, ids: list[int]) -> list[bool]:
        """Mark the ids after each assistant header up to and with the end token."""
        mask, size, inside = [False] * len(ids), len(self._header), False
        for position in range(size, len(ids)):
            inside = inside or ids[position - size : position] == self._header
            mask[position] = inside
            inside = inside and ids[position] != self.end
        return mask
