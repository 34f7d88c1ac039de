"""What is run under watch and is no verb of its own: a whole load, a server that ends, and an attempt on purpose.

python -m llm_local.cli.egress.trials load MODEL
python -m llm_local.cli.egress.trials serve MODEL
python -m llm_local.cli.egress.trials attempt
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from llm_local.config import load_config
from llm_local.errors import HubUnavailable, LocalLLMError
from llm_local.terminal.process import prepare_process

if TYPE_CHECKING:
    from llm_local.config import Config

__all__ = ["NOBODY", "attempt", "load", "serve"]

NOBODY: Final = "192.0.2.1"
"""An address that is nobody's, reserved for examples."""

_HERE: Final = "127.0.0.1"
_POLL_S: Final = 0.1


def load(model: str) -> None:
    """Load `model` through transformers, also where an earlier start left what makes it unnecessary.

    Raises:
        LocalLLMError: it cannot be found, read or held in memory.
    """
    config = load_config({"model_id": model})
    prepare_process(config)
    # Late: it imports torch, and libraries must not be imported before the lines above.
    from llm_local.model_loader import load_tokenizer_and_model, resolve_model

    resolved = resolve_model(config.model_spec(), explicit=True, offline=config.offline)
    load_tokenizer_and_model(resolved.spec, path=resolved.path)


def serve(model: str) -> None:
    """Serve `model` to this machine alone, have it answer one request over HTTP, and end as `llm-local stop` ends it.

    Raises:
        LocalLLMError: it cannot be served, or did not answer.
    """
    # Late, as above; and the server's libraries are slow to import.
    import asyncio

    key = secrets.token_urlsafe()
    config = load_config({"model_id": model, "api_host": _HERE, "api_keys": key})
    prepare_process(config)
    asyncio.run(_serve_once(dataclasses.replace(config, ollama_port=None), key))


async def _serve_once(config: Config, key: str) -> None:
    # Late, as above.
    import asyncio

    from llm_local.api_server import serve as run_server

    finder = await asyncio.start_server(lambda reader, writer: None, _HERE, 0)
    port = finder.sockets[0].getsockname()[1]
    finder.close()
    serving = asyncio.create_task(run_server(dataclasses.replace(config, api_port=port)))
    while not serving.done():
        with suppress(OSError):  # it does not listen yet
            if await _ask(port, "GET /ready", key) == 200:
                break
        await asyncio.sleep(_POLL_S)
    else:
        serving.result()
    messages = [{"role": "user", "content": "Hello"}]
    body = json.dumps({"model": config.model_id, "messages": messages, "max_tokens": 1}).encode()
    status = await _ask(port, "POST /v1/chat/completions", key, body)
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
    if status != 200:
        raise LocalLLMError(f"The server answered {status}.")


async def _ask(port: int, what: str, key: str, body: bytes = b"") -> int:
    """The status of an answer. A client's library would bring its own ideas of proxies."""
    # Late, as above.
    import asyncio

    reader, writer = await asyncio.open_connection(_HERE, port)
    head = f"{what} HTTP/1.1\r\nhost: {_HERE}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    return int(answer.split(maxsplit=2)[1])


def attempt() -> None:
    """Try to leave this machine, through the one door that may, and fail."""
    # Late: nothing else here needs the network's libraries.
    from llm_local.store.hub import probe

    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    with suppress(HubUnavailable):
        probe(f"http://{NOBODY}")


if __name__ == "__main__":
    if sys.argv[1] == "attempt":
        attempt()
    else:
        {"load": load, "serve": serve}[sys.argv[1]](sys.argv[2])
