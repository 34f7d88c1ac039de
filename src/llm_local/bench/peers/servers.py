"""The servers that `bench serve` asks: ours, what it computes with, and transformers' own; all on the same files."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from llm_local.bench.machine import peak_rss_bytes
from llm_local.bench.peers.files import model_folder
from llm_local.bench.peers.generator_driver import generate
from llm_local.bench.peers.process import HelperProcess, own_environment
from llm_local.bench.peers.server_process import ServerProcess, free_port
from llm_local.bench.runners import ENGINE
from llm_local.bench.serve import CONTINUOUS, IN_PROCESS
from llm_local.bench.sse_client import HOST, Answers, complete
from llm_local.bench.subjects import Subject

__all__ = ["GeneratorServer", "HttpServer", "open_ours", "open_transformers"]

# Nothing of it goes to a hub.
_OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


class HttpServer:
    """A server that speaks OpenAI's dialect on `port`."""

    def __init__(
        self,
        name: str,
        process: ServerProcess,
        port: int,
        model: str,
        facts: Mapping[str, Any],
        key: str = "",
    ) -> None:
        self.name, self.facts = name, facts
        self._process, self._port, self._model = process, port, model
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def answer(self, prompts: Sequence[str], new_tokens: int) -> Answers:
        """See `serve.Server`.

        Raises:
            EngineError: it refused, or failed.
        """
        bodies = [
            {
                "model": self._model,
                "prompt": prompt,
                "max_tokens": new_tokens,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            for prompt in prompts
        ]
        return complete(self._port, bodies, self._headers)

    def count(self, text: str) -> int:
        """See `serve.Server`."""
        return self.answer([text], 1).each[0].prompt_tokens

    def peak_rss_bytes(self) -> int:
        """See `serve.Server`."""
        return peak_rss_bytes(self._process.pid)


class GeneratorServer:
    """The generator of our server, without the server."""

    name: str = IN_PROCESS

    def __init__(self, process: HelperProcess, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self._process = process

    def answer(self, prompts: Sequence[str], new_tokens: int) -> Answers:
        """See `serve.Server`."""
        return generate(self._process, list(prompts), new_tokens)

    def count(self, text: str) -> int:
        """See `serve.Server`."""
        return int(self._process.ask(do="count", text=text)["tokens"])

    def peak_rss_bytes(self) -> int:
        """See `serve.Server`."""
        return peak_rss_bytes(self._process.pid)


def open_ours(subject: Subject, clients: int, cleanup: ExitStack) -> tuple[HttpServer, GeneratorServer]:
    """Our server with places for so many clients, and its generator without it; `cleanup` ends them.

    Raises:
        EngineError: one cannot load the model.
    """
    info, folder = subject.info, str(model_folder(subject))
    settings = {
        "model_id": folder,
        "quantization": info.quantization,
        "device_map": info.device.partition(":")[0],
        "offline": "true",
        "kernels": subject.options.kernels,
    }
    if info.quantization == "none":
        settings["torch_dtype"] = info.dtype
    within = HelperProcess(sys.executable, "llm_local.bench.peers.generator_driver", own_environment())
    cleanup.callback(within.close)
    facts = within.ask(do="open", settings=settings)
    port, key = free_port(), secrets.token_hex(16)
    serving = {
        "api_host": HOST,
        "api_port": str(port),
        "api_keys": key,  # people may have keys of their own in a file: then the server asks for one
        "max_concurrent_requests": str(clients + clients // 2 + 1),  # with keys a quarter is for other owners
    }
    environ = {name.upper(): value for name, value in {**settings, **serving}.items()}
    process = ServerProcess(ENGINE, "llm_local.api_server", (), {**own_environment(), **environ})
    cleanup.callback(process.close)
    process.wait_ready(port, "/ready")
    return HttpServer(ENGINE, process, port, folder, facts, key), GeneratorServer(within, facts)


def open_transformers(subject: Subject, cleanup: ExitStack, *, continuous: bool) -> HttpServer:
    """`transformers serve`, on as many threads as ours; `cleanup` ends it.

    Raises:
        EngineError: it does not start.
    """
    info, folder, port = subject.info, model_folder(subject), free_port()
    words = ["serve", str(folder), "--host", HOST, "--port", str(port)]
    words += ["--device", info.device.partition(":")[0]]
    words += ["--dtype", "auto" if info.quantization != "none" else info.dtype]
    words += ["--continuous-batching"] if continuous else []
    name = f"transformers:{CONTINUOUS}" if continuous else "transformers"
    environ = {**own_environment(subject.num_threads()), **_OFFLINE}
    process = ServerProcess(name, "transformers.cli.transformers", words, environ)
    cleanup.callback(process.close)
    process.wait_ready(port, "/health")
    facts = {
        "version": f"transformers serve {version('transformers')}",
        "weight_bytes": sum(one.stat().st_size for one in Path(folder).glob("*.safetensors")),
    }
    return HttpServer(name, process, port, str(folder), facts)
