"""The trainer of the starter model: its own forward pass, its optimizer, and going on after an interruption."""

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from starter.batches import to_batch  # noqa: E402
from starter.checkpoints import FILE  # noqa: E402
from starter.forward import FastForward  # noqa: E402
from starter.model import make_config, make_model  # noqa: E402
from starter.optimizer import make_optimizers, orthogonalized  # noqa: E402
from starter.rendering import Row  # noqa: E402
from starter.training import Recipe, Trainer  # noqa: E402
from starter.workers import Workers  # noqa: E402

TINY = Recipe(
    seed=1, tokens=1e9, width=64, layers=1, batch_tokens=512, compiled=False, threads=1, tokenizer_rows=300
)


def noisy_model() -> torch.nn.Module:
    model = make_model(make_config(width=128, layers=2), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh model has zeros, which hide mistakes
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("size", [(3, 40), (1, 33), (1, 700)])
def test_the_fast_forward_is_the_forward_of_transformers(size: tuple[int, int]) -> None:
    model = noisy_model()
    ids = torch.randint(0, 2048, size)
    with torch.inference_mode():
        ours = FastForward(model, torch.float32, compiled=False).hidden(ids)
        theirs = model.model(input_ids=ids, use_cache=False).last_hidden_state
    assert torch.allclose(ours, theirs, atol=2e-4)


def test_padding_on_the_right_changes_nothing() -> None:
    forward = FastForward(noisy_model(), torch.float32, compiled=False)
    short, long = (Row(list(range(3, size)), [False] + [True] * (size - 4)) for size in (12, 60))
    with torch.inference_mode():
        alone = [forward.loss(batch.ids, batch.targets) for batch in (to_batch([short]), to_batch([long]))]
        both = to_batch([short, long])
        together = forward.loss(both.ids, both.targets)
    assert torch.allclose(sum(alone), together, rtol=1e-4)


def test_orthogonalized_matrices_have_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonalized(torch.randn(3, 32, 64)))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_every_parameter_has_one_optimizer() -> None:
    model = noisy_model()
    owned = [
        id(one)
        for each in make_optimizers(model, 0.1, 0.1)
        for group in each.param_groups
        for one in group["params"]
    ]
    assert sorted(owned) == sorted(id(one) for one in model.parameters())


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    def steps(trainer: Trainer, count: int) -> None:
        workers = Workers(1, trainer.forward, trainer.batches)
        for _ in range(count):
            trainer.train_step(workers)

    whole = Trainer(TINY, tmp_path / "whole", resume=False)
    steps(whole, 4)
    first = Trainer(TINY, tmp_path / "parts", resume=False)
    steps(first, 2)
    first.save()
    second = Trainer(TINY, tmp_path / "parts", resume=True)
    assert second.step == 2
    steps(second, 2)
    assert (second.tokens, second.pool, second.used_batches) == (whole.tokens, whole.pool, whole.used_batches)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_a_checkpoint_leaves_no_partial_file(tmp_path: Path) -> None:
    Trainer(TINY, tmp_path, resume=False).save()
    assert (tmp_path / FILE).exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_the_learning_rate_falls_to_zero_by_tokens_or_by_time(tmp_path: Path) -> None:
    trainer = Trainer(dataclasses.replace(TINY, tokens=1000, minutes=10), tmp_path, resume=False)
    trainer.step = 1000
    assert trainer.rate() == 1.0
    trainer.tokens = 700
    assert 0 < trainer.rate() < 1
    trainer.seconds = 600
    assert trainer.rate() == 0.0
