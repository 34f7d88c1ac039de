"""The training loop: what a step does, how the learning rate falls, and when to save."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from .batches import Batch, BatchPlan, pool
from .checkpoints import load_checkpoint, save_checkpoint
from .forward import FastForward
from .model import export, make_config, make_model
from .optimizer import make_optimizers
from .rendering import Renderer
from .tokenizer import load_tokenizer, train_tokenizer
from .workers import Workers


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result. The run ends at ``tokens`` or at ``minutes``, whichever comes first."""

    seed: int = 7
    tokens: float = 40e6
    minutes: float = 90.0
    width: int = 256
    layers: int = 6
    matrix_lr: float = 0.015
    other_lr: float = 0.004
    batch_tokens: int = 3072
    batches_per_step: int = 2
    echo_share: float = 0.10
    warmup_steps: int = 60
    decay_from: float = 0.4
    compiled: bool = True
    threads: int = 2
    tokenizer_rows: int = 30_000


class Trainer:
    """One run in one folder. Everything that must survive an interruption is in ``state()``."""

    def __init__(self, recipe: Recipe, folder: Path, resume: bool) -> None:
        self.recipe, self.folder = recipe, folder
        folder.mkdir(parents=True, exist_ok=True)
        saved = load_checkpoint(folder) if resume else None
        self.tokenizer = self._tokenizer(saved is not None)
        self.config = make_config(recipe.width, recipe.layers)
        self.model = make_model(self.config, recipe.seed)
        self.forward = FastForward(self.model, compiled=recipe.compiled)
        self.optimizers = make_optimizers(self.model, recipe.matrix_lr, recipe.other_lr)
        self.average = {name: one.detach().clone() for name, one in self.model.state_dict().items()}
        self.step = self.tokens = self.pool = self.used_batches = 0
        self.seconds = self.loss = 0.0
        if saved:
            self._restore(saved)

    def _tokenizer(self, resumed: bool) -> PreTrainedTokenizerFast:
        if not resumed:
            train_tokenizer(self.recipe.seed, self.recipe.tokenizer_rows).save_pretrained(
                str(self.folder / "tokenizer")
            )
        return load_tokenizer(self.folder / "tokenizer")

    def state(self) -> dict[str, Any]:
        """The whole run as plain tensors and numbers."""
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [one.state_dict() for one in self.optimizers],
            "counters": [self.step, self.tokens, self.pool, self.used_batches],
            "seconds": self.seconds,
            "loss": self.loss,
            "recipe": asdict(self.recipe),
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.average = saved["average"]
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.tokens, self.pool, self.used_batches = saved["counters"]
        self.seconds, self.loss = saved["seconds"], saved["loss"]

    def progress(self) -> float:
        """The share of the run that is done, in [0, 1], by tokens or by time."""
        return min(1.0, max(self.tokens / self.recipe.tokens, self.seconds / (60 * self.recipe.minutes)))

    def rate(self) -> float:
        """The factor of the learning rate: a short warm-up, a plateau, a line down to zero at the end."""
        warm = min(1.0, (self.step + 1) / self.recipe.warmup_steps)
        return warm * min(1.0, (1.0 - self.progress()) / (1.0 - self.recipe.decay_from))

    def batches(self) -> Iterator[list[Batch]]:
        """The batches of one step after the other, from where the run stands."""
        recipe = self.recipe
        plan = BatchPlan(recipe.seed, recipe.batch_tokens, echo_share=recipe.echo_share)
        renderer, number, used = Renderer(self.tokenizer), self.pool, self.used_batches
        waiting: list[Batch] = []
        while True:
            made = pool(renderer, plan, number, self.config.vocab_size)
            while used < len(made):
                waiting.append(made[used])
                used += 1
                if len(waiting) == recipe.batches_per_step:
                    self.pool, self.used_batches = number, used
                    yield waiting
                    waiting = []
            number, used = number + 1, 0

    def train_step(self, workers: Workers) -> None:
        """One update. ``loss`` is the moving mean for a learned token."""
        tally = workers.gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        rate = self.rate()
        # The helpers rest now, so their cores are free for the large products of the optimizer.
        torch.set_num_threads(self.recipe.threads)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate
            optimizer.step()
        torch.set_num_threads(1)
        self._average()
        loss = tally.loss / tally.learned
        self.loss = 0.99 * self.loss + 0.01 * loss if self.step else loss
        self.step += 1
        self.tokens += tally.tokens

    @torch.no_grad()
    def _average(self) -> None:
        # An average over about the last hundred steps: checkpoints before the decay are then usable too.
        share = max(0.01, 1.0 / (self.step + 1))
        own = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [own[name] for name in self.average], share)

    def save(self) -> None:
        """Write the checkpoint and the averaged model."""
        save_checkpoint(self.state(), self.folder)
        export(self.average, self.config, self.tokenizer, self.folder / "model")
        record = {
            "recipe": asdict(self.recipe),
            "tokens": self.tokens,
            "steps": self.step,
            "seconds": round(self.seconds),
            "loss": self.loss,
            "torch": str(torch.__version__),
        }
        (self.folder / "model" / "training.json").write_text(json.dumps(record, indent=2) + "\n")


def run(trainer: Trainer, save_minutes: float = 4.0) -> None:
    """Train to the end, saving every few minutes. Ctrl-C raises KeyboardInterrupt after a save."""
    workers, line = Workers(trainer.recipe.threads, trainer.forward, trainer.batches), ProgressLine(trainer)
    saved_at = started = time.monotonic()
    before = trainer.seconds
    try:
        while trainer.progress() < 1.0:
            trainer.train_step(workers)
            now = time.monotonic()
            trainer.seconds = before + now - started
            line.show()
            if now - saved_at > 60 * save_minutes:
                trainer.save()
                saved_at = time.monotonic()
    finally:
        workers.close()
        trainer.save()
        print(file=sys.stderr)


class ProgressLine:
    """One line on stderr: rewritten on a terminal, one line in a hundred steps elsewhere."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._from = (trainer.tokens, trainer.seconds)

    def show(self) -> None:
        """Print when it is time."""
        one = self._trainer
        terminal = sys.stderr.isatty()
        if one.step % (10 if terminal else 100):
            return
        speed = (one.tokens - self._from[0]) / max(1e-9, one.seconds - self._from[1])
        left = one.seconds / max(1e-9, one.progress()) - one.seconds
        text = (
            f"step {one.step}  loss {one.loss:.4f}  {one.tokens / 1e6:.2f} M tokens  {speed:,.0f} tokens/s  "
            f"rate {one.rate():.2f}  {one.progress():.1%} done  {left / 60:.1f} min left"
        )
        print(text, end="\r" if terminal else "\n", file=sys.stderr, flush=True)
