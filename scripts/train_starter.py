"""Train the starter model: corpus, tokenizer and weights, from a seed, on a CPU."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train the starter model of llm-local: corpus, tokenizer and weights, from a seed, on a CPU.",
        epilog="The run ends at --tokens or at --minutes, whichever comes first; the learning rate is zero by then. "
        "With the same seed, --tokens and threads the result is the same; --minutes depends on the machine.",
    )
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        default=Path("build/starter"),
        metavar="DIR",
        help="folder of the run (default: %(default)s)",
    )
    add("--seed", type=int, default=7, help="seed of corpus, tokenizer and weights (default: %(default)s)")
    add("--tokens", type=float, default=40e6, metavar="N", help="tokens to train on (default: %(default).0f)")
    add(
        "--minutes",
        type=float,
        default=90,
        metavar="M",
        help="time to train for, resumed parts included (default: %(default)s)",
    )
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add(
        "--threads",
        type=int,
        default=2,
        help="cores to train on; each computes batches of its own (default: %(default)s)",
    )
    add("--width", type=int, default=256, help="hidden size, a multiple of 64 (default: %(default)s)")
    add("--layers", type=int, default=6, help="number of layers (default: %(default)s)")
    add("--lr", type=float, default=0.015, help="learning rate of the matrices (default: %(default)s)")
    add(
        "--embedding-lr",
        type=float,
        default=0.004,
        help="learning rate of embedding and norms (default: %(default)s)",
    )
    add(
        "--echo-share",
        type=float,
        default=0.10,
        help="share of rows that teach copying random tokens (default: %(default)s)",
    )
    add(
        "--no-compile",
        action="store_true",
        help="do not compile the layers (slower; the default where there is no g++)",
    )
    add(
        "--save-minutes",
        type=float,
        default=4,
        metavar="M",
        help="time between checkpoints (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Train, and say where the model is. Exit status 130 after Ctrl-C, with a checkpoint saved."""
    options = parse_arguments()
    from starter.training import Recipe, Trainer, run

    recipe = Recipe(
        seed=options.seed,
        tokens=options.tokens,
        minutes=options.minutes,
        width=options.width,
        layers=options.layers,
        matrix_lr=options.lr,
        other_lr=options.embedding_lr,
        echo_share=options.echo_share,
        threads=options.threads,
        compiled=not options.no_compile,
    )
    trainer = Trainer(recipe, options.out, options.resume)
    try:
        run(trainer, options.save_minutes)
    except KeyboardInterrupt:
        print(f"stopped; go on with --resume --out {options.out}", file=sys.stderr)
        return 130
    print(f"model written to {options.out / 'model'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
