"""One thread for what is small, all for what is not."""

from __future__ import annotations

import pytest
import torch

from engine_driving import request, run
from llm_local.engine import threads
from llm_local.engine.factory import make_engine
from llm_local.engine.native_runner import NativeRunner
from llm_local.kernels.library import Native
from tiny_models import random_prompt, tiny_model


def test_a_small_model_runs_on_one_thread_and_a_large_one_on_all(monkeypatch):
    monkeypatch.setattr(threads, "_DEFAULT_THREADS", 2)
    assert threads.threads_for(tiny_model("llama")) == 1
    large = torch.nn.Linear(4096, 4097, device="meta")
    assert threads.threads_for(large) == 2


def test_packed_weights_count_by_what_they_take(monkeypatch):
    monkeypatch.setattr(threads, "_DEFAULT_THREADS", 2)
    layer = torch.nn.Module()
    layer.register_buffer(
        "packed", torch.empty(threads.ONE_THREAD_BYTES + 1, dtype=torch.uint8, device="meta")
    )
    layer.num_weights = 2 * threads.ONE_THREAD_BYTES
    assert threads.threads_for(layer) == 2


@pytest.mark.parametrize("kernels", ["auto", "linears", "off"])
def test_each_forward_states_its_own_number(kernels, monkeypatch):
    before = torch.get_num_threads()
    engine = make_engine(tiny_model("llama"), context_length=100, kernels=kernels)
    asked = []
    step = Native.step

    def watched(self, model, batch, scratch, num_threads):
        asked.append(num_threads)
        step(self, model, batch, scratch, num_threads)

    monkeypatch.setattr(Native, "step", watched)
    torch.set_num_threads(2)
    try:
        run(engine, request("a", random_prompt(5)))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert set(asked) == ({1} if isinstance(engine._runner, NativeRunner) else set())
