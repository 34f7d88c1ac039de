"""A real server over the service without models, with short deadlines: for what only sockets and signals show.

    python fake_server.py --port PORT [FLAG...]

The prompt says what is answered: `slow` a piece every 20 ms for ever, `flood` pieces of 64 KB for ever, `silent`
nothing for ever, anything else two pieces and the end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from api.fake_service import EVENTS, FakeReply, FakeService
from llm_local import api_server
from llm_local.api import protocol, streams
from llm_local.config import load_config
from llm_local.errors import LocalLLMError
from llm_local.events import Delta
from llm_local.logs import configure_logging
from llm_local.service import Work
from llm_local.terminal.exit_codes import exit_code
from llm_local.terminal.flags import setting_flags
from llm_local.terminal.serve_flags import add_serve_flags

HEAD_S, BODY_S, SEND_S, PING_S = 0.6, 0.9, 1.0, 0.3


class ScriptedService(FakeService):
    """What is answered is what the prompt asks for. `open_replies` is in the metrics."""

    async def begin(self, work: Work) -> FakeReply:
        self.events = script(work.prompt or "")
        return await super().begin(work)

    def metrics_text(self) -> str:
        return f"open_replies {sum(not reply.closed for reply in self.replies)}\n"


def script(prompt: str) -> Iterable[Any]:
    if prompt == "slow":
        return itertools.chain.from_iterable((Delta("content", "x", (1,)), 0.02) for _ in range(100_000))
    if prompt == "flood":
        return (Delta("content", "y" * 65536, (1,)) for _ in range(100_000))
    return (None,) if prompt == "silent" else EVENTS


def main() -> int:
    parser = argparse.ArgumentParser()
    add_serve_flags(parser)
    args = parser.parse_args()
    protocol._SECONDS.update(head=HEAD_S, body=BODY_S)
    streams.SEND_TIMEOUT_S, streams.PING_S = SEND_S, PING_S
    config = load_config(setting_flags(args))
    configure_logging("info", json_lines=True, secrets=config.secrets)
    logging.getLogger("asyncio").setLevel("WARNING")
    service: Any = ScriptedService(config)
    try:
        return asyncio.run(api_server.serve(config, insecure=args.insecure_no_auth, service=service))
    except LocalLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)


if __name__ == "__main__":
    sys.exit(main())
