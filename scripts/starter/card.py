"""The report of the evaluation: a table for the terminal, a JSON file, and the model card that ships."""

import json
from pathlib import Path
from typing import Any

from .dialogue import REAL_MODEL

_CARD = """\
---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The starter model of llm-local

A tiny chat model that ships with llm-local, so that the first command answers offline within seconds and the tests
exercise real generation. It is a demonstration: it knows how llm-local is used and a handful of exercises, and nothing
about the world. It says so when asked something else. For real answers use a real model:

    {real_model} "Hello"

## What it is

- {parameters:.2f} million parameters in bfloat16, Qwen3 architecture ({layers} layers, width {width}, {heads} heads, {kv_heads}
  key-value heads), tied embeddings, context {context}.
- Byte-level BPE of {vocabulary} tokens, each digit on its own; any Unicode text survives tokenizing and back. No merge crosses
  from a space or a mark into a word, so a word has the same tokens everywhere.
- Chat template in the ChatML style: system, user, assistant and tool turns. Tools are listed between `<tools>` and
  `</tools>`; a call is a JSON object between `<tool_call>` and `</tool_call>`, a result stands between `<tool_response>` and
  `</tool_response>`.
- Everything is ours: the dialogues are templates and generated values written for this project; the tokenizer and the
  weights are trained from scratch on them. No other text, model or data set was used. MIT license.

## What it can do, measured

Exact match of the whole last turn, end token included, with greedy decoding in float32. The slot values (names, words,
numbers, tool names, parameters ...) are ones that training never showed: a hash of the value decides. "Known phrasing"
asks with phrasings of the training, "new phrasing" with phrasings that were kept out of it, where a family has some.
Exceptions: foods, true and false, numbers below ten and the words of "yes or no" are seen ones, and so are capitals of
countries; a sum is new when training showed its two numbers in the other order at most. While the run was paused, the
shares of the exercises were chosen after a look at this evaluation with another seed; the figures are from a fresh one.

{table}

{worst}
{check}
## Limits

- Outside these exercises it is of no use. Unknown questions mostly get the reply that it cannot know, but it may also
  mistake one for something it knows, and questions on llm-local in words of their own for one another.
- Sums go up to 98. Words are copied as they are; it cannot spell, count letters, or write an unseen word in capitals.
- Most of its training rows are shorter than 512 tokens; a small share fills up to {context}. The rows "recall in a long chat"
  and "a long pasted text" say how far this carries.
- English, with greetings in ten languages.

## How it was made

    ./run.sh scripts/train_starter.py --seed {seed} --minutes {minutes:g} --threads {threads}
    ./run.sh scripts/eval_starter.py --model DIR --write-card

{tokens:.1f} million tokens in {steps:,} steps, {wall:.0f} minutes on {threads} CPU cores (shared with other work), {speed:,.0f} tokens/s on
average, mean loss of a learned token at the end {loss:.3f}. Muon for the matrices, AdamW for the rest, bfloat16 activations
over float32 weights. The shares of the exercises change once: later rows have more sums, tools and system prompts, which
take longest, and rarer values. These changes were made while this run was paused, so a run with the same seed sees the
same data in the same order but for a few batches there; it ends at another token where the machine is faster or slower.
The figures of this page are written by `scripts/eval_starter.py`, not by hand.
"""


def table(report: dict[str, Any]) -> str:
    """The abilities as a Markdown table."""
    lines = [
        "| ability | n | mean tokens | known phrasing | new phrasing | end token missed |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in report["abilities"].items():
        counts = f"{row['n']} + {row['n_new']} | {row['mean_tokens']}"
        lines.append(
            f"| {name} | {counts} | {row['exact']:.0f} % | {row['exact_new']:.0f} % | {row['end_missed']} |"
        )
    return "\n".join(lines)


def _worst(report: dict[str, Any], target: float = 90.0) -> str:
    low = [name for name, row in report["abilities"].items() if min(row["exact"], row["exact_new"]) < target]
    if not low:
        return f"Every figure is at least {target:.0f} %.\n"
    return f"Below {target:.0f} % in at least one column: {', '.join(low)}. Do not rely on these.\n"


def _check(report: dict[str, Any]) -> str:
    agreed, checked = report["cross_check"]
    if not checked:
        return ""
    return f"Of {checked} conversations that were also generated token by token, {agreed} were judged the same.\n"


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n")


def write_card(report: dict[str, Any], folder: Path) -> None:
    """Write the model card with the figures of ``report``."""
    config = json.loads((folder / "config.json").read_text())
    training = report["training"]
    text = _CARD.format(
        real_model=REAL_MODEL,
        parameters=report["parameters"] / 1e6,
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        context=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
        table=table(report),
        worst=_worst(report),
        check=_check(report),
        seed=training["recipe"]["seed"],
        minutes=training["recipe"]["minutes"],
        threads=training["recipe"]["threads"],
        tokens=training["tokens"] / 1e6,
        steps=training["steps"],
        wall=training["seconds"] / 60,
        speed=training["tokens"] / max(1.0, training["seconds"]),
        loss=training["loss"],
    )
    (folder / "README.md").write_text(text)
