"""The API server's door: `make_app` for whoever embeds it, `serve` and `main` for a process of its own.

python -m llm_local.api_server --host 127.0.0.1 --port 8123 --model starter
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from llm_local import __version__
from llm_local.api.anthropic import routes as anthropic
from llm_local.api.border import Border, BorderRules, is_loopback
from llm_local.api.dependencies import admit
from llm_local.api.errors import Envelope, Envelopes, error_response
from llm_local.api.gate import Gate
from llm_local.api.influence import routes as influence
from llm_local.api.keeping import Conversations
from llm_local.api.legacy import routes as legacy
from llm_local.api.lifecycle import Lifecycle
from llm_local.api.native import routes as native
from llm_local.api.observe import ACCESS_LOG, Answered, Failures, Observed, watch_loop
from llm_local.api.ollama import routes as ollama
from llm_local.api.openai import routes as openai
from llm_local.api.openapi import describe_api, pages
from llm_local.api.presence import Presence
from llm_local.api.probes import probes
from llm_local.api.queue import routes as queue
from llm_local.api.queue.jobs import finish_jobs
from llm_local.api.rate_limit import RateLimits
from llm_local.api.server import ApiServer, raise_file_limit
from llm_local.config import Config, load_config
from llm_local.errors import ConfigError, InvalidRequest
from llm_local.logs import configure_logging
from llm_local.service import Service
from llm_local.store.keys import KeyRing, keys_file

__all__ = ["main", "make_app", "run", "serve"]

logger = logging.getLogger("llm_local.server")

_CLOSING_S: Final = 2.0
_PARAMETER: Final = re.compile(r"[\w.]{1,64}", re.ASCII)

_DESCRIPTION: Final = (
    "Language models on this machine. Options have our own names here; `/v1` speaks OpenAI's dialect and Anthropic's, "
    "`/api` Ollama's."
)


def make_app(
    config: Config,
    service: Service,
    *,
    keys: KeyRing | None = None,
    conversations: Conversations | None = None,
) -> FastAPI:
    """The application over a service, which it closes when it ends.

    `keys` are those of the settings and of `llm-local keys` unless they are given; `conversations` likewise.
    """
    app = FastAPI(
        title="llm-local",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        middleware=[
            Middleware(Observed, on_answered=partial(_count, service)),
            Middleware(Border, rules=_border_rules(config)),
            Middleware(Failures),
            Middleware(Gate),
        ],
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.service = service
    app.state.began = time.monotonic()
    app.state.keys = KeyRing(config.api_keys, keys_file()) if keys is None else keys
    app.state.conversations = conversations or Conversations()
    app.state.rate_limits = RateLimits(config.rate_limit)
    app.state.lifecycle = Lifecycle(config.grace_s)
    app.state.envelopes = Envelopes(_ENVELOPES)
    app.add_exception_handler(HTTPException, _failed)
    app.add_exception_handler(RequestValidationError, _wrong_parameters)
    app.include_router(probes)
    for router in (*_ROUTERS, pages):
        app.include_router(router, dependencies=[Depends(admit)])
    app.openapi = partial(describe_api, app)  # type: ignore[method-assign]  # as FastAPI says to do
    return app


# One line for each dialect. `admit` stands before all of them, and before nothing but these stands nothing.
_ROUTERS: Final[tuple[APIRouter, ...]] = (
    native.router,
    legacy.router,
    queue.router,
    openai.router,
    ollama.router,
    anthropic.router,
    influence.router,
)
_ENVELOPES: Final[Mapping[str, Envelope]] = {
    legacy.PREFIX: legacy.envelope,
    openai.PREFIX: openai.envelope,
    ollama.PREFIX: ollama.envelope,
    anthropic.PREFIX: anthropic.envelope,
}


async def serve(config: Config, *, insecure: bool = False, service: Service | None = None) -> int:
    """Run a server until it is told to end, over a service of its own or one that is given. Returns the exit code.

    Raises:
        ConfigError: others could reach it without a key.
        LocalLLMError: it cannot listen, or the default model cannot be loaded.
    """
    keys = KeyRing(config.api_keys, keys_file())
    _check_bind(config, keys, insecure=insecure)
    if keys.is_empty:
        logger.warning(
            "Nobody can use this server: a key is needed, and there is none. `llm-local keys add` makes one; without "
            "%s a server of this machine alone needs none.",
            keys_file(),
        )
    raise_file_limit()
    service = service or Service(config)
    app = make_app(config, service, keys=keys)
    ports = (config.api_port, *filter(None, [config.ollama_port]))
    draining: set[asyncio.Task[bool]] = set()  # a task that nobody holds may vanish
    server = ApiServer(
        app,
        config.api_host,
        ports,
        lambda: draining.add(asyncio.create_task(service.drain(config.grace_s))),
    )
    serving = asyncio.create_task(server.serve())
    while not (server.started or serving.done()):
        await asyncio.sleep(0.01)
    if serving.done():
        await service.aclose()
        serving.result()
        return server.exit_code
    for port in server.ports:
        logger.info("listening", extra={"url": f"http://{_in_url(config.api_host)}:{port}"})
    with Presence(config.api_host, server.ports[0], service) as presence:
        aside = [asyncio.create_task(presence.keep()), asyncio.create_task(_load_default(server, service))]
        try:
            await serving
        finally:
            for task in aside:
                task.cancel()
            results = await asyncio.gather(*aside, return_exceptions=True)
    failure = next((one for one in results if isinstance(one, Exception)), None)
    if failure is not None and server.signal is None:
        raise failure
    return server.exit_code


def run(args: argparse.Namespace) -> int:
    """Run the server with the flags of `terminal.serve_flags`, and return its exit code.

    Raises:
        LocalLLMError: it cannot run; what is wrong with the settings is known before anything is loaded.
    """
    # Late: who embeds the application has no terminal, and no settings of a process.
    from llm_local.terminal.flags import setting_flags
    from llm_local.terminal.process import prepare_process

    config = load_config(setting_flags(args))
    prepare_process(config)
    # A person reads lines, a program JSON; both read one record a line.
    configure_logging(config.log_level, json_lines=not sys.stderr.isatty(), secrets=config.secrets)
    if not config.is_explicit("log_level"):
        for name in (ACCESS_LOG, logger.name):
            logging.getLogger(name).setLevel(logging.INFO)
    if config.log_level != "debug":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)  # what it tells of itself we tell too
    for warning in config.warnings:
        logger.warning(warning)
    # Not asyncio.run: it would wait for threads that compute for nobody any more. Who calls leaves the process.
    return asyncio.new_event_loop().run_until_complete(serve(config, insecure=args.insecure_no_auth))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server with a command line (this process's own by default), and return its exit code."""
    # Late: who embeds the application has no terminal.
    from llm_local.terminal.exit_codes import OK, error_line, exit_code
    from llm_local.terminal.flag_parser import FlagParser
    from llm_local.terminal.serve_flags import add_serve_flags
    from llm_local.terminal.streams import Messages

    messages = Messages.on_stderr()
    parser = FlagParser(prog="llm_local.api_server", description="Serve models of this machine over HTTP.")
    add_serve_flags(parser)
    parser.add_argument("-h", "--help", action="store_true", help="show this help")
    try:
        args = parser.parse(list(sys.argv[1:] if argv is None else argv))
        if args.help:
            messages.block(parser.format_help())
            return OK
        return run(args)
    except Exception as error:
        messages.note(error_line(error))
        return exit_code(error)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    watcher = asyncio.create_task(watch_loop(service.metrics.loop_lag))
    try:
        yield
    finally:
        await finish_jobs(app)
        watcher.cancel()
        await app.state.conversations.aclose()
        with suppress(TimeoutError):  # a model that is just being loaded is not waited for
            async with asyncio.timeout(_CLOSING_S):
                await service.aclose()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _count(service: Service, answered: Answered) -> None:
    service.metrics.http_request(
        answered.method, answered.route, answered.status, answered.duration_s, streamed=answered.streamed
    )


def _border_rules(config: Config) -> BorderRules:
    hosts = (*_words(config.api_allowed_hosts), config.api_host)
    return BorderRules(hosts, _words(config.api_cors_origins))


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


async def _failed(request: Request, error: Exception) -> Response:
    return error_response(request, error)


async def _wrong_parameters(request: Request, error: Exception) -> Response:
    """What FastAPI found in a query or a path, said as we say it: 400, and nothing of the value."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    found: dict[str, Any] = dict(problems[0]) if problems else {"loc": (), "msg": "is wrong", "type": ""}
    name = ".".join(str(part) for part in found["loc"][1:])
    name = name if _PARAMETER.fullmatch(name) else "A parameter"
    words = {"missing": "is required", "extra_forbidden": "is no parameter of this path"}
    message = words.get(found["type"], str(found["msg"]).removeprefix("Input "))
    return error_response(request, InvalidRequest(f"{name} {message}.", param=name))


def _check_bind(config: Config, keys: KeyRing, *, insecure: bool) -> None:
    if keys.is_open and not insecure and not is_loopback(config.api_host):
        raise ConfigError(
            f"Others could use the server on {config.api_host} without a key.",
            "Set API_KEYS, or make a key with `llm-local keys add`; --insecure-no-auth does without.",
            param="API_HOST",
        )


async def _load_default(server: ApiServer, service: Service) -> None:
    """Have the default model ready, or end the server: who named a model that cannot run wants to know."""
    try:
        loaded = await service.load(None)
    except Exception:
        server.should_exit = True
        raise
    for notice in loaded.notices:
        logger.warning(notice)  # such as: it is another model than the default, which is not here
    logger.info("ready", extra={"model": loaded.name, "load_s": round(loaded.load_s, 3)})


if __name__ == "__main__":
    # Late: only a process of its own leaves.
    from llm_local.terminal.exit_codes import leave

    leave(main())
