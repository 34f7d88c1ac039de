"""The tokenizer: byte-level BPE trained on the corpus, with the chat template beside it."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .corpus import draw

VOCABULARY = 2048
CONTEXT = 2048
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# Marks that the model writes as text: not special, so that they survive detokenization.
MARKS = (
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
    "<think>",
    "</think>",
)
TEMPLATE_FILE = Path(__file__).parents[2] / "src" / "llm_local" / "starter" / "chat_template.jinja"

# The split of Qwen2, which converters know: it glues a space to the word that follows ...
_RUNNING_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# ... but the merges are learned on this one, where spaces, words and marks are apart. So no merge crosses from a space
# into a word, and a word has the same tokens at the start of a line, after a space and in quotes: copying is then easy.
# Marks such as ` "` may keep their space, for JSON has many of them.
_LEARNING_SPLIT = r"\p{L}+|\p{N}| ?[!-/:-@\[-`{-~]+|[^\s\p{L}\p{N}]+|[\r\n]+| +|\s"


def _split(pattern: str) -> pre_tokenizers.Sequence:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _texts(seed: int, rows: int) -> Iterator[str]:
    rng = random.Random(f"tokenizer {seed}")
    for _ in range(rows):
        _, dialogue = draw(rng)
        for tool in dialogue.tools:
            yield str(tool).replace("'", '"')
        for message in dialogue.messages:
            yield message["content"] or str(message.get("tool_calls")).replace("'", '"')


def train_tokenizer(seed: int, rows: int = 30_000) -> PreTrainedTokenizerFast:
    """Train the tokenizer on ``rows`` dialogues of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _split(_LEARNING_SPLIT)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKS),
        special_tokens=[END_OF_TEXT, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, rows), trainer)
    tokenizer.pre_tokenizer = _split(_RUNNING_SPLIT)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    return with_template(tokenizer)


def with_template(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers wants it, with its names for tokens and the chat template."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[START, END],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = TEMPLATE_FILE.read_text()
    return wrapped


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer from a directory with ``tokenizer.json``."""
    loaded: Any = PreTrainedTokenizerFast.from_pretrained(str(folder))
    return loaded
