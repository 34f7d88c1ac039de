"""A program for the peer's Python, not for ours: runs llama.cpp on prompts of token ids and says when tokens came.

Asked through `serving.py`, with nothing of llm-local there. It calls the C interface of llama.cpp directly: batches of
several sequences, the largest logit, no sampler, everything else as llama.cpp has it by default.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["LlamaCpp", "answer"]


class LlamaCpp:
    """One GGUF model, and the context in which it last ran."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        began = time.perf_counter()
        # Late: where they are missing, the reply says so.
        import llama_cpp  # type: ignore[import-not-found, unused-ignore]
        import numpy

        self._lib, self._numpy, self._threads = llama_cpp, numpy, int(asked["threads"])
        imported = time.perf_counter()
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            os.fsencode(asked["path"]), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {asked['path']}")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = int(llama_cpp.llama_vocab_n_tokens(vocabulary))
        self._context: Any = None
        self._room = (0, 0)
        self._make_context(int(asked["sequences"]), int(asked["tokens"]))
        self.facts = {
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "system": llama_cpp.llama_print_system_info().decode().strip(" |"),
            "weight_bytes": int(llama_cpp.llama_model_size(self._model)),
            "import_s": imported - began,
            "load_s": time.perf_counter() - imported,
        }

    def generate(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The most likely tokens after each prompt, all of one length, and the seconds at which each step had them."""
        prompts: Sequence[Sequence[int]] = asked["prompts"]
        num_new = int(asked["new_tokens"])
        self._make_context(len(prompts), len(prompts[0]) + num_new)
        lib, context = self._lib, self._context
        lib.llama_memory_clear(lib.llama_get_memory(context), False)
        found: list[list[int]] = [[] for _ in prompts]
        moments = []
        began = time.perf_counter()
        rows = [
            (token, position, number, position == len(prompt) - 1)
            for number, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        size = int(lib.llama_n_batch(context))
        for start in range(0, len(rows), size):
            self._run(rows[start : start + size], found)
        moments.append(time.perf_counter() - began)
        for step in range(num_new - 1):
            position = len(prompts[0]) + step
            self._run([(found[number][-1], position, number, True) for number in range(len(prompts))], found)
            moments.append(time.perf_counter() - began)
        return {"tokens_s": moments, "token_ids": found}

    def _make_context(self, sequences: int, tokens: int) -> None:
        """Room for that many sequences of that many tokens; one that is large enough is kept."""
        if self._context is not None:
            if sequences <= self._room[0] and tokens <= self._room[1]:
                return
            self._lib.llama_free(self._context)
        lib = self._lib
        params = lib.llama_context_default_params()
        # Each sequence has its own stretch of keys and values, in steps of 256 tokens; its share is n_ctx / n_seq_max.
        params.n_ctx = sequences * (-(-tokens // 256) * 256)
        params.n_batch = min(2048, params.n_ctx)
        params.n_seq_max = sequences
        params.kv_unified = False
        params.n_threads = params.n_threads_batch = self._threads
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp has no memory for {sequences} sequences of {tokens} tokens")
        self._room = (sequences, tokens)

    def _run(self, rows: Sequence[tuple[int, int, int, bool]], found: list[list[int]]) -> None:
        """One batch of (token, position, sequence, wanted); adds the next token of every wanted row."""
        lib = self._lib
        batch = lib.llama_batch_init(len(rows), 0, 1)
        try:
            batch.n_tokens = len(rows)
            for index, (token, position, number, wanted) in enumerate(rows):
                batch.token[index] = token
                batch.pos[index] = position
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = number
                batch.logits[index] = wanted
            status = lib.llama_decode(self._context, batch)
            if status != 0:
                raise RuntimeError(f"llama_decode failed with status {status}")
            for index, (_, _, number, wanted) in enumerate(rows):
                if wanted:
                    logits = lib.llama_get_logits_ith(self._context, index)
                    values = self._numpy.ctypeslib.as_array(logits, shape=(self._vocab_size,))
                    found[number].append(int(values.argmax()))
        finally:
            lib.llama_batch_free(batch)


_opened: dict[str, LlamaCpp] = {}


def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """`do` is "check" (is all there?), "open", or "generate" with what was opened last."""
    if asked["do"] == "check":
        for package in ("llama_cpp", "gguf", "numpy"):
            importlib.import_module(package)
        return {}
    if asked["do"] == "open":
        _opened["model"] = LlamaCpp(asked)
        return _opened["model"].facts
    return _opened["model"].generate(asked)
