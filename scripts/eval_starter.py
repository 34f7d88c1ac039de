"""Measure the starter model: exact replies per ability, on values and phrasings that training never showed."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

SHIPPED = Path(__file__).parents[1] / "src" / "llm_local" / "starter"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Measure the starter model: exact replies per ability, for values and phrasings never trained."
    )
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        default=SHIPPED,
        metavar="DIR",
        help="model directory (default: the model that ships)",
    )
    add(
        "--count",
        type=int,
        default=100,
        metavar="N",
        help="conversations per family and column (default: %(default)s)",
    )
    add(
        "--check",
        type=int,
        default=40,
        metavar="N",
        help="conversations to generate as a cross-check (default: %(default)s)",
    )
    add("--seed", type=int, default=2027, help="seed of the conversations (default: %(default)s)")
    add("--threads", type=int, default=2, help="torch threads (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file")
    add("--write-card", action="store_true", help="write README.md and eval.json in the model directory")
    add(
        "--ask",
        action="append",
        metavar="TEXT",
        help="only generate a reply to this prompt (may be repeated)",
    )
    return parser.parse_args(arguments)


def training_record(folder: Path) -> dict[str, Any]:
    """What the training wrote about itself: beside the fresh weights, later inside the report."""
    fresh, kept = folder / "training.json", folder / "eval.json"
    if fresh.exists():
        return json.loads(fresh.read_text())
    return json.loads(kept.read_text())["training"] if kept.exists() else {}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Score every ability, printing each line when it is known."""
    from starter.evaluation import ABILITIES, Evaluator

    evaluator = Evaluator(options.model, options.seed)
    rows: dict[str, Any] = {}
    for ability, families in ABILITIES.items():
        known = evaluator.score(families, options.count, new_phrasings=False)
        new = evaluator.score(families, options.count, new_phrasings=True)
        rows[ability] = {
            "n": known.conversations,
            "n_new": new.conversations,
            "exact": known.percent,
            "exact_new": new.percent,
            "end_missed": known.end_missed + new.end_missed,
            "mean_tokens": round((known.tokens + new.tokens) / (known.conversations + new.conversations)),
        }
        figures = f"{known.percent:5.1f} %  new phrasing {new.percent:5.1f} %"
        print(f"{ability:32} n={known.conversations:4}  {figures}  end missed {rows[ability]['end_missed']}")
    return {
        "abilities": rows,
        "cross_check": evaluator.cross_check(options.check),
        "parameters": sum(one.numel() for one in evaluator.model.parameters()),
        "seed": options.seed,
        "training": training_record(options.model),
    }


def ask(options: argparse.Namespace) -> None:
    """Print the replies to the prompts of ``--ask``."""
    from starter.evaluation import Evaluator

    evaluator = Evaluator(options.model)
    for text in options.ask:
        print(f"> {text}\n{evaluator.reply([{'role': 'user', 'content': text}])}\n")


def main() -> int:
    """Measure, print, and write what was asked for."""
    options = parse_arguments()
    import torch

    torch.set_num_threads(options.threads)
    if options.ask:
        ask(options)
        return 0
    from starter.card import write_card, write_report

    report = measure(options)
    agreed, checked = report["cross_check"]
    print(f"generation agrees with the forward pass in {agreed} of {checked}")
    if options.json:
        write_report(report, options.json)
    if options.write_card:
        write_report(report, options.model / "eval.json")
        write_card(report, options.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
