"""How often the last turn is exactly right, for values and phrasings that training never showed.

With greedy decoding, a reply is exactly the expected one if and only if the most likely token is the expected token at
every position of it. So one forward pass over the whole conversation decides, with no generation; ``cross_check``
holds a sample against real generation.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from .batches import to_batch
from .corpus import FAMILIES, LONG_FAMILIES, alone, drawn_for_evaluation
from .dialogue import Dialogue
from .families.usage import usage_in_new_words
from .rendering import Renderer, Row
from .slots import Slots
from .tokenizer import CONTEXT, load_tokenizer

# What the model card promises, and the families of dialogues that measure it.
ABILITIES: dict[str, tuple[str, ...]] = {
    "greet": ("greeting", "named_greeting", "foreign_greeting", "small_talk", "joke"),
    "say what it is and can do": ("identity", "abilities"),
    "questions on llm-local": ("usage",),
    "say that it cannot know": ("fallback", "pasted"),
    "repeat a phrase": ("repeat",),
    "recall after 1 turn": ("recall_1", "recall_at_once", "recall_system"),
    "recall after 2 turns": ("recall_2", "recall_changed"),
    "recall after 3 to 5 turns": ("recall_3", "recall_many"),
    "say that it was not told": ("not_told",),
    "add two numbers up to 20": ("addition_small",),
    "add two numbers up to 49": ("addition",),
    "system prompt: capitals": ("system_capitals",),
    "system prompt: brief": ("system_brief",),
    "system prompt: persona": ("system_persona",),
    "system prompt: ending": ("system_ending",),
    "system prompt: none of these": ("system_neutral",),
    "call a tool": ("tool_call", "tool_chat"),
    "call two tools": ("tool_calls_two",),
    "use the result of a tool": ("tool_result",),
    "need no tool": ("tool_not_needed",),
    "answer with JSON": ("json", "json_extracted", "json_system"),
    "answer from a passage": ("context",),
    "lists, parts, choices": ("as_list", "pick_part", "repeat_often", "choice"),
    "yes or no": ("yes_or_no", "comparison"),
    "count": ("counting",),
    "think before a sum": ("thinking",),
    "capitals of countries": ("capital",),
    "fixed texts and code": ("fixed_text", "hello_world"),
    "tell a story": ("story",),
    "chat of 2 to 9 exchanges": ("chat", "chat_long"),
    "recall in a long chat": ("long_chat",),
    "a long pasted text": ("long_paste",),
    "llm-local in words never seen": ("usage_in_new_words",),
}
_EXTRA = {"usage_in_new_words": alone(usage_in_new_words)}


@dataclass
class Score:
    """Counts for one set of conversations."""

    conversations: int = 0
    exact: int = 0
    end_missed: int = 0
    tokens: int = 0

    def add(self, exact: bool, ended: bool, tokens: int) -> None:
        """Count one conversation of ``tokens`` tokens."""
        self.conversations += 1
        self.tokens += tokens
        self.exact += exact
        self.end_missed += not ended

    @property
    def percent(self) -> float:
        """Share of exact last turns in percent."""
        return round(100 * self.exact / max(1, self.conversations), 1)


class Evaluator:
    """Measures one model directory."""

    def __init__(self, folder: Path, seed: int = 99) -> None:
        self.model = Qwen3ForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
        self.tokenizer: PreTrainedTokenizerFast = load_tokenizer(folder)
        self.renderer = Renderer(self.tokenizer)
        self.seed = seed

    def dialogues(self, family: str, count: int, new_phrasings: bool) -> list[Dialogue]:
        """``count`` conversations of a family on the side that training never saw."""
        rng = random.Random(f"evaluation {self.seed} {family} {new_phrasings}")
        made: list[Dialogue] = []
        while len(made) < count:
            if family in _EXTRA:
                dialogue = _EXTRA[family](Slots(rng, True, new_phrasings))
            else:
                dialogue = drawn_for_evaluation(family, rng, new_phrasings)
            if len(self.renderer.row(dialogue).ids) <= CONTEXT:
                made.append(dialogue)
        return made

    @torch.inference_mode()
    def judge(self, dialogues: Sequence[Dialogue], at_once: int = 16) -> list[tuple[bool, bool, int]]:
        """For each conversation: is the last turn exact, is the end token predicted at its end, how many tokens?"""
        rows = sorted(enumerate(map(self._last_turn_row, dialogues)), key=lambda pair: len(pair[1].ids))
        verdicts: dict[int, tuple[bool, bool, int]] = {}
        for start in range(0, len(rows), at_once):
            chunk = rows[start : start + at_once]
            batch = to_batch([row for _, row in chunk])
            hidden = self.model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
            for (index, row), targets, states in zip(chunk, batch.targets, hidden, strict=True):
                wanted = targets >= 0
                right = self.model.lm_head(states[wanted]).argmax(-1) == targets[wanted]
                verdicts[index] = (bool(right.all()), bool(right[-1]), len(row.ids))
        return [verdicts[index] for index in range(len(rows))]

    def _last_turn_row(self, dialogue: Dialogue) -> Row:
        row = self.renderer.row(dialogue)
        start = row.last_turn()
        return Row(row.ids, [learned and index >= start for index, learned in enumerate(row.learned)])

    def score(self, families: Sequence[str], count: int, new_phrasings: bool) -> Score:
        """The score of an ability, ``count`` conversations of each of its families."""
        score = Score()
        for family in families:
            # Long conversations cost as much as many short ones, so there are fewer of them.
            number = max(10, count // 4) if family in LONG_FAMILIES else count
            for verdict in self.judge(self.dialogues(family, number, new_phrasings)):
                score.add(*verdict)
        return score

    @torch.inference_mode()
    def reply(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, most: int = 400
    ) -> str:
        """Generate a reply, greedily, and return it with its marks but without the end token."""
        prompt = self.renderer.text(
            Dialogue([*messages, {"role": "assistant", "content": ""}], tools or []), prompt_only=True
        )
        ids = torch.tensor([self.renderer.ids(prompt)])
        output = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False
        )
        new = output[0, ids.size(1) :].tolist()
        text: str = self.tokenizer.decode(new[:-1] if new and new[-1] == self.renderer.end else new)
        return text

    def cross_check(self, count: int) -> tuple[int, int]:
        """How many of ``count`` conversations generation judges as the forward pass did: (agreed, checked)."""
        rng = random.Random(f"cross-check {self.seed}")
        families = [name for name in FAMILIES if name not in LONG_FAMILIES]
        dialogues = [drawn_for_evaluation(rng.choice(families), rng, True) for _ in range(count)]
        agreed = 0
        for dialogue, (exact, _, _) in zip(dialogues, self.judge(dialogues), strict=True):
            prompt, whole = self.renderer.text(dialogue, prompt_only=True), self.renderer.text(dialogue)
            expected = whole[len(prompt) :].removesuffix("<|im_end|>\n")
            agreed += (self.reply(dialogue.messages[:-1], dialogue.tools) == expected) == exact
        return agreed, count
