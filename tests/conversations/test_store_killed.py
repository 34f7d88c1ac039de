"""kill -9 at any instant: what was acknowledged is there, and nothing half looks whole."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from llm_local.conversations.records import LOCAL_OWNER
from llm_local.conversations.store import ConversationStore
from llm_local.messages import Message

WRITER = Path(__file__).with_name("killed_writer.py")
# Once in a while all of them are run by hand: LLM_TESTS_KILLS=200.
KILLS = int(os.environ.get("LLM_TESTS_KILLS", "15"))


def kill_a_writer(path: Path, conversation: str, part: int, after_s: float) -> list[list[str]]:
    """Let a writer run for a while and kill it; what it acknowledged, by lines that came whole."""
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(path), conversation, str(part)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()  # it is at work now
        time.sleep(after_s)
        writer.kill()
        rest = writer.stdout.read()
    lines = (first + rest).decode().splitlines(keepends=True)
    return [line.rstrip("\n").split("\t") for line in lines if line.endswith("\n")]


def check_integrity(path: Path) -> None:
    """The file is whole, and so is the index of words."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        for table, rows in (("message_words", "messages"), ("title_words", "conversations")):
            connection.execute(f"INSERT INTO {table} ({table}) VALUES ('integrity-check')")
            indexed = connection.execute(f"SELECT rowid FROM {table} ORDER BY rowid").fetchall()
            kept = connection.execute(f"SELECT seq FROM {rows} WHERE seq ORDER BY seq").fetchall()
            assert indexed == kept


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    store = ConversationStore.open(path)
    conversation = store.create(LOCAL_OWNER, title="t").id
    store.append(LOCAL_OWNER, conversation, Message("system", "begin"))
    store.close()
    kept: list[tuple[str, str]] = [("complete", "begin")]
    acknowledged = 0
    chance = random.Random(8)
    for part in range(KILLS):
        lines = kill_a_writer(path, conversation, part, chance.uniform(0, 0.3))
        began = time.monotonic()
        store = ConversationStore.open(path)
        found = [(m.status, m.message.content) for m in store.messages(LOCAL_OWNER, conversation)]
        assert time.monotonic() - began < 5
        assert store.notices == ()
        store.close()
        check_integrity(path)
        for position, status, content in lines:
            del kept[int(position) :]
            kept.append((status, content))
        acknowledged += len(lines)
        # At most one step was under way: an answer anew in the place of the last, or one more message.
        assert found[: len(kept) - 1] == kept[:-1]
        last = found[len(kept) - 1]
        assert last == kept[-1] or last[1] == kept[-1][1].replace("answer", "anew")
        assert len(found) <= len(kept) + 1
        for status, content in found:
            if content.startswith(("answer", "anew")):
                assert (status == "complete") == content.endswith("whole")
        kept = found
    assert acknowledged >= KILLS
    print(f"{KILLS} kills, {acknowledged} acknowledged")


def test_every_write_is_brought_to_the_disk(tmp_path: Path) -> None:
    store = ConversationStore.open(tmp_path / "talk.db")
    with store._database.reading() as connection:  # the only way to see what a power cut would find
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "mmap_size", "wal_autocheckpoint")
        }
    store.close()
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "mmap_size": 0,
        "wal_autocheckpoint": 0,
    }
