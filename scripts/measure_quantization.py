"""Measure what packed weights lose: the starter model at 8 and 4 bits against itself in float32, on unseen text.

./run.sh scripts/measure_quantization.py            print the table
./run.sh scripts/measure_quantization.py --write    put it into docs/quantization.md
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

import torch  # noqa: E402

from llm_local.kernels.library import native, status  # noqa: E402
from llm_local.model_loader import LoadedModel, load_tokenizer_and_model  # noqa: E402
from llm_local.specs import ModelSpec  # noqa: E402
from starter.corpus import FAMILIES, drawn_for_evaluation  # noqa: E402
from starter.rendering import Renderer, Row  # noqa: E402

PAGE = ROOT / "docs" / "quantization.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
SEED: Final = 4242
WAYS: Final = {
    "float32": ModelSpec("starter", dtype="float32", device="cpu"),
    "bfloat16": ModelSpec("starter", dtype="bfloat16", device="cpu"),
    "int8": ModelSpec("starter", quantization="int8", device="cpu", packed_cache_bytes=0),
    "int4": ModelSpec("starter", quantization="int4", device="cpu", packed_cache_bytes=0),
    "int8, stock torch": ModelSpec("starter", quantization="int8", device="cpu", kernels="off"),
    "int4, stock torch": ModelSpec("starter", quantization="int4", device="cpu", kernels="off"),
}


@dataclass
class Tally:
    """Sums over the tokens that the assistant had to say."""

    tokens: int = 0
    loss: float = 0.0
    same_first: int = 0
    divergence: float = 0.0
    exact_turns: int = 0
    turns: int = 0
    sizes: list[float] = field(default_factory=list)

    def add(self, logits: torch.Tensor, reference: torch.Tensor, targets: torch.Tensor) -> None:
        """Count one conversation: `[tokens, vocab]` logits, those of float32, and the ids that come next."""
        ours, theirs = logits.double().log_softmax(-1), reference.double().log_softmax(-1)
        self.tokens += len(targets)
        self.loss -= float(ours.gather(1, targets[:, None]).sum())
        self.same_first += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        self.divergence += float((theirs.exp() * (theirs - ours)).sum())
        self.turns += 1
        self.exact_turns += bool((ours.argmax(-1) == targets).all())

    def row(self, name: str, size: int, error: float | None) -> str:
        """One line of the table."""
        perplexity = torch.tensor(self.loss / self.tokens).exp().item()
        return (
            f"| {name} | {size / 1e6:.1f} MB | {'' if error is None else f'{error:.4f}'} | {perplexity:.4f} "
            f"| {100 * self.same_first / self.tokens:.2f} % | {self.divergence / self.tokens:.5f} "
            f"| {100 * self.exact_turns / self.turns:.1f} % |"
        )


def conversations(renderer: Renderer, each: int) -> Iterator[Row]:
    """`each` conversations of every family, with values and phrasings that training never saw."""
    for name in FAMILIES:
        draw = random.Random(f"quantization {SEED} {name}")
        for _ in range(each):
            yield renderer.row(drawn_for_evaluation(name, draw, new_phrasings=True))


def logits_of(loaded: LoadedModel, row: Row) -> torch.Tensor:
    """What the model predicts at each id that the assistant says."""
    with torch.inference_mode():
        found = loaded.model(input_ids=torch.tensor([row.ids[:-1]]), use_cache=False).logits[0]
    return found[torch.tensor(row.learned[1:])].float()


def weight_error(loaded: LoadedModel, original: LoadedModel) -> float | None:
    """Root of the squared error over the squares of the weights, of all packed weights; None where none is."""
    library, stored = native(), dict(original.model.named_parameters())
    squares = errors = 0.0
    for name, module in loaded.model.named_modules():
        if library is not None and hasattr(module, "as_struct") and hasattr(module, "num_weights"):
            # a head that is tied is the embedding
            weight = stored.get(f"{name}.weight", original.model.get_input_embeddings().weight)
            back = library.unpack(module.as_struct())
            errors += float((back - weight.detach()).double().square().sum())
            squares += float(weight.detach().double().square().sum())
    return (errors / squares) ** 0.5 if squares else None


def measure(each: int) -> list[str]:
    """The table, line by line."""
    models = {name: load_tokenizer_and_model(spec) for name, spec in WAYS.items()}
    reference = models["float32"]
    tallies = {name: Tally() for name in models}
    rows = [row for row in conversations(Renderer(reference.tokenizer), each) if len(row.ids) <= 1024]
    for row in rows:
        expected = logits_of(reference, row)
        targets = torch.tensor(row.ids[1:])[torch.tensor(row.learned[1:])]
        for name, loaded in models.items():
            tallies[name].add(logits_of(loaded, row), expected, targets)
    count = tallies["float32"].tokens
    lines = [
        f"{len(rows)} conversations of the starter's own generator ({len(FAMILIES)} families, seed {SEED}), with "
        "values and phrasings",
        f"that training never saw; {count} tokens that the assistant has to say. Kernels: {status().variant}.",
        "",
        "| weights | size | weight error | perplexity | same token as float32 | KL from float32 | replies exact |",
        "|---|---|---|---|---|---|---|",
    ]
    return lines + [
        tallies[name].row(name, loaded.info.weight_bytes, weight_error(loaded, reference))
        for name, loaded in models.items()
    ]


def main(arguments: Sequence[str]) -> int:
    """Print or write the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--each", type=int, default=8, metavar="N", help="conversations of each family (default: 8)"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/quantization.md")
    asked: Any = parser.parse_args(arguments)
    if status().reason:
        print(f"There is no native code: {status().reason}", file=sys.stderr)
        return 1
    text = "\n".join(measure(asked.each)) + "\n"
    if asked.write:
        page = PAGE.read_text("utf-8")
        before, _, rest = page.partition(BEGIN)
        PAGE.write_text(before + BEGIN + text + END + rest.partition(END)[2], "utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
