"""From the name of a peer to a program that runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llm_local.bench.peers.files import GGUF_FORMATS, gguf_file
from llm_local.bench.peers.process import HelperProcess, MissingPackage, own_environment
from llm_local.bench.runners import PeerRunner
from llm_local.bench.serve import CONTINUOUS
from llm_local.bench.startup import Start
from llm_local.bench.subjects import Subject
from llm_local.errors import InvalidRequest
from llm_local.specs import ModelInfo

__all__ = ["PEERS", "PeerName", "Peers", "parse_peer"]

PEERS: Final = ("transformers", "llama.cpp")
_BUILD: Final = (
    'CMAKE_ARGS="-DGGML_NATIVE=ON" {python} -m pip install --no-binary llama-cpp-python llama-cpp-python gguf'
)
_SAME_SIZE: Final = {"int4": "Q4_0", "int8": "Q8_0"}
_SAME_NUMBERS: Final = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True, slots=True)
class PeerName:
    """One of PEERS; for llama.cpp the GGUF format, where empty means the one most like ours; for transformers how it
    serves."""

    program: str
    form: str = ""

    @property
    def kind(self) -> str:
        """What scenarios take or not: the program, and how it serves."""
        return f"{self.program}:{self.form}" if self.form == CONTINUOUS else self.program

    def shown(self, info: ModelInfo) -> str:
        """What tables call it beside the model of `info`."""
        return f"{self.program} {self.format_beside(info)}" if self.program == "llama.cpp" else self.kind

    def format_beside(self, info: ModelInfo) -> str:
        """The GGUF format that is compared with the model of `info`."""
        return self.form or _SAME_SIZE.get(info.quantization) or _SAME_NUMBERS[info.dtype]


def parse_peer(text: str) -> PeerName:
    """`transformers`, `transformers:continuous`, `llama.cpp` or `llama.cpp:Q4_K_M`.

    Raises:
        InvalidRequest: no such program, or no such format.
    """
    program, _, form = text.partition(":")
    if program not in PEERS or (form not in ("", CONTINUOUS) and program == "transformers"):
        raise InvalidRequest(
            f"--against is {text!r}, but must be transformers, transformers:{CONTINUOUS}, llama.cpp or "
            "llama.cpp:FORMAT.",
            param="against",
        )
    if form and program == "llama.cpp" and form not in GGUF_FORMATS:
        raise InvalidRequest(
            f"--against names the format {form!r}, but must name one of {', '.join(GGUF_FORMATS)}.",
            param="against",
        )
    return PeerName(program, form)


@dataclass(frozen=True, slots=True)
class Peers:
    """Opens peers. `python` is the interpreter that has llama.cpp's package."""

    names: tuple[PeerName, ...]
    python: str

    def check(self) -> None:
        """See that what the peers need is there, before anything is loaded.

        Raises:
            InvalidRequest: the interpreter lacks a package; the message says how to install it.
        """
        if all(name.program != "llama.cpp" for name in self.names):
            return
        process = HelperProcess(self.python, "llama_cpp_driver")
        try:
            process.ask(do="check")
        except MissingPackage as error:
            raise InvalidRequest(
                f"The Python at {self.python} has no package {error.package}, which --against llama.cpp needs.",
                f"Install it built for this machine: {_BUILD.format(python=self.python)}; or name another "
                "interpreter with --peer-python.",
                param="against",
            ) from None
        finally:
            process.close()

    def open(self, subject: Subject, sequences: int, tokens: int) -> Iterator[PeerRunner]:
        """One after the other, with room for so many sequences of so many tokens, on as many threads as ours.

        Raises:
            EngineError: one cannot load the model.
        """
        for name in self.names:
            if name.program == "llama.cpp":
                yield self._llama_cpp(name, subject, sequences, tokens)
            else:
                yield self._transformers(subject)

    def start(self, name: PeerName, subject: Subject, prompt_tokens: int) -> tuple[Start, Mapping[str, Any]]:
        """Start llama.cpp, load, and make one token after a prompt of that length: seconds, and facts.

        Raises:
            EngineError: it cannot load the model.
        """
        path = str(gguf_file(subject, name.format_beside(subject.info), self.python, subject.num_threads()))
        began = time.perf_counter()
        process = HelperProcess(self.python, "llama_cpp_driver")
        try:
            facts = process.ask(
                do="open", path=path, threads=subject.num_threads(), sequences=1, tokens=prompt_tokens + 1
            )
            reply = process.ask(do="generate", prompts=[[0] * prompt_tokens], new_tokens=1)
        finally:
            seconds = time.perf_counter() - began
            process.close()
        loading = facts["import_s"] + facts["load_s"]
        return Start(seconds, loading, reply["tokens_s"][0], prompt_tokens), {**facts, "file": path}

    def _llama_cpp(self, name: PeerName, subject: Subject, sequences: int, tokens: int) -> PeerRunner:
        threads = subject.num_threads()
        path = str(gguf_file(subject, name.format_beside(subject.info), self.python, threads))
        process = HelperProcess(self.python, "llama_cpp_driver")
        facts = _opened(process, path=path, threads=threads, sequences=sequences, tokens=tokens)
        known = {**facts, "file": path, "kv_bytes_per_token": _f16_kv_bytes(subject.shape)}
        return PeerRunner(name.shown(subject.info), process, known)

    def _transformers(self, subject: Subject) -> PeerRunner:
        process = HelperProcess(
            sys.executable,
            "llm_local.bench.peers.transformers_driver",
            own_environment(subject.num_threads()),
        )
        facts = _opened(
            process,
            shape=subject.published,
            path="" if subject.published else subject.info.path,
            dtype="auto" if subject.info.quantization != "none" else subject.info.dtype,
            device=subject.info.device.partition(":")[0],
        )
        return PeerRunner("transformers", process, facts)


def _opened(process: HelperProcess, **question: Any) -> Mapping[str, Any]:
    try:
        return process.ask(do="open", **question)
    except BaseException:
        process.close()
        raise


def _f16_kv_bytes(shape: Mapping[str, Any]) -> int:
    """What llama.cpp keeps of one token by default: keys and values of 16 bits."""
    heads = shape["num_attention_heads"]
    head_dim = shape.get("head_dim") or shape["hidden_size"] // heads
    return int(shape["num_hidden_layers"] * (shape.get("num_key_value_heads") or heads) * head_dim * 2 * 2)
