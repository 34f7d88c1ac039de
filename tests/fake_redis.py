"""As much of a Redis as the response cache talks to, on loopback: GET, SET with EX, AUTH, SELECT; and its troubles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class FakeRedis:
    """What it holds and what it was asked. `trouble`: "silent" never answers, "error" answers with an error."""

    port: int = 0
    values: dict[bytes, bytes] = field(default_factory=dict)
    asked: list[tuple[bytes, ...]] = field(default_factory=list)
    trouble: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while command := await _read_command(reader):
                self.asked.append(command)
                if self.trouble != "silent":
                    writer.write(b"-OOM no room\r\n" if self.trouble == "error" else self.answer(command))
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def answer(self, command: tuple[bytes, ...]) -> bytes:
        what = command[0].upper()
        if what == b"SET":
            self.values[command[1]] = command[2]
            return b"+OK\r\n"
        if what == b"GET":
            value = self.values.get(command[1])
            return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)
        return b"+OK\r\n" if what in (b"AUTH", b"SELECT") else b"-ERR unknown command\r\n"


@asynccontextmanager
async def fake_redis(trouble: str = "") -> AsyncIterator[FakeRedis]:
    """One that runs as long as the block."""
    redis = FakeRedis(trouble=trouble)
    server = await asyncio.start_server(redis.serve, "127.0.0.1", 0)
    redis.port = server.sockets[0].getsockname()[1]
    async with server:
        yield redis


async def _read_command(reader: asyncio.StreamReader) -> tuple[bytes, ...]:
    line = await reader.readline()
    if not line:
        return ()
    parts = []
    for _ in range(int(line[1:])):
        size = int((await reader.readline())[1:])
        parts.append((await reader.readexactly(size + 2))[:-2])
    return tuple(parts)
