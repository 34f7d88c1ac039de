"""What goes wrong with files: damage, other versions, full and read-only disks, planted links, other processes."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from llm_local.conversations import database, files, turns
from llm_local.conversations.database import Database
from llm_local.conversations.migrations import MIGRATIONS
from llm_local.conversations.records import LOCAL_OWNER, StoredMessage
from llm_local.conversations.store import ConversationStore, conversations_path
from llm_local.errors import (
    Busy,
    ConversationNotFound,
    DatabaseUnusable,
    InvalidRequest,
    LocalLLMError,
    StorageError,
)
from llm_local.locks import locked
from llm_local.messages import Message
from llm_local.terminal.exit_codes import exit_code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database of a test is."""
    return tmp_path / "data" / "talk.db"


@contextmanager
def opened(path: Path) -> Iterator[ConversationStore]:
    """A store for a while."""
    store = ConversationStore.open(path)
    try:
        yield store
    finally:
        store.close()


def filled(path: Path, *texts: str) -> str:
    """A database with one conversation, closed; its id."""
    with opened(path) as store:
        return store.create(LOCAL_OWNER, messages=[Message("user", text) for text in texts]).id


def contents(path: Path, conversation: str) -> list[str]:
    """What was said."""
    with opened(path) as store:
        return [one.message.content for one in store.messages(LOCAL_OWNER, conversation)]


def garble(path: Path) -> None:
    """Overwrite all pages but the first, which has the schema."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


# --- who may read it -------------------------------------------------------------------------------------------------


def test_the_default_place_is_the_data_home(isolated_home: Path) -> None:
    assert conversations_path() == isolated_home / "llm-local" / "conversations" / "conversations.db"
    store = ConversationStore.open()
    store.close()
    assert conversations_path().is_file()


def test_files_and_folders_are_private_whatever_umask_says(path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(path) as store:
            kept = store.create(LOCAL_OWNER, messages=[Message("user", "secret")])
            other = store.create(LOCAL_OWNER)
            store.delete(LOCAL_OWNER, other.id)  # which writes a backup
            assert store.get(LOCAL_OWNER, kept.id) == kept
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    names = {"talk.db", "talk.db-wal", "talk.db-shm", "talk.db.lock", "talk.db.backup"}
    assert modes == dict.fromkeys(names, 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_database_that_others_could_read_is_tightened(path: Path) -> None:
    filled(path, "x")
    path.chmod(0o666)
    with opened(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["talk.db", "talk.db-wal", "talk.db-shm", "talk.db-journal", "talk.db.lock"])
def test_a_planted_link_is_not_followed(path: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    path.parent.mkdir()
    (path.parent / name).symlink_to(victim)
    with pytest.raises((DatabaseUnusable, StorageError), match="is a link, and is not followed"):
        ConversationStore.open(path)
    assert victim.read_bytes() == b"mine"
    assert stat.S_IMODE(victim.stat().st_mode) != 0o600


def test_a_link_planted_as_backup_is_neither_read_nor_written(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    filled(path, "x")
    backup = path.with_name("talk.db.backup")
    backup.symlink_to(victim)
    with opened(path):
        assert backup.is_file()
        assert not backup.is_symlink()
    assert victim.read_bytes() == b"mine"


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk", [b"This is no database. " * 400, b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 8000]
)
def test_a_file_that_is_no_database_is_moved_aside(path: Path, junk: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(junk)
    with opened(path) as store:
        assert store.list(LOCAL_OWNER) == ()
        (notice,) = store.notices
        store.create(LOCAL_OWNER)
    (aside,) = path.parent.glob("talk.db.damaged-*")
    assert aside.read_bytes() == junk
    assert str(aside) in notice
    assert "no backup" in notice


def test_the_last_backup_takes_the_place_of_a_damaged_database(path: Path) -> None:
    conversation = filled(path, "one", "two")
    with opened(path):  # a backup is made when a database is opened that has none
        pass
    for damage in (
        garble,
        lambda file: file.write_bytes(b"no database" * 900),
        lambda file: os.truncate(file, 0),
    ):
        damage(path)
        with opened(path) as store:
            try:
                found = store.messages(LOCAL_OWNER, conversation)
            except DatabaseUnusable as error:  # pages that only the reading of messages comes to
                assert "are damaged" in str(error)
                found = store.messages(LOCAL_OWNER, conversation)
            assert [one.message.content for one in found] == ["one", "two"]
            assert "The backup of" in store.notices[-1]
    assert len(list(path.parent.glob("talk.db.damaged-*[0-9]"))) == 3


def test_a_damaged_backup_is_not_restored(path: Path) -> None:
    filled(path, "one")
    with opened(path):
        pass
    garble(path.with_name("talk.db.backup"))
    path.write_bytes(b"junk" * 3000)
    with opened(path) as store:
        assert store.list(LOCAL_OWNER) == ()
        assert "no backup" in store.notices[0]


def test_damage_that_is_met_later_is_told_once_and_mended(path: Path) -> None:
    conversation = filled(path, *(f"{number} " * 3000 for number in range(20)))
    with opened(path):
        pass
    with opened(path) as store:
        garble(path)
        with pytest.raises(DatabaseUnusable, match="are damaged") as caught:
            store.messages(LOCAL_OWNER, conversation)
        assert exit_code(caught.value) == 1
        assert len(store.messages(LOCAL_OWNER, conversation)) == 20
        store.append(LOCAL_OWNER, conversation, Message("user", "it goes on"))
    assert contents(path, conversation)[-1] == "it goes on"


def test_a_disk_that_stumbles_is_not_taken_for_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = filled(path, "x")
    real = database.schema_version
    stumbles = [1]

    def stumble(*given: object) -> int:
        if stumbles:
            stumbles.pop()
            raise refusal(sqlite3.SQLITE_NOTADB)
        return real(*given)

    monkeypatch.setattr(database, "schema_version", stumble)
    with opened(path) as store:  # looked at anew, and nothing is wrong
        assert store.notices == ()
        assert store.get(LOCAL_OWNER, conversation).num_messages == 1
        with pytest.raises(StorageError, match="seems whole") as caught, store._database.reading():
            stumbles.append(1)
            stumble()
        assert exit_code(caught.value) == 6
        assert store.get(LOCAL_OWNER, conversation).num_messages == 1
    assert not list(path.parent.glob("*damaged*"))


def test_a_damaged_index_is_made_anew(path: Path) -> None:
    conversation = filled(path, "green tea", "black tea")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE message_words_data SET block = x'a5a5a5a5' WHERE id > 10")
        connection.commit()
    with opened(path) as store:
        with pytest.raises(DatabaseUnusable, match="nothing is lost"):
            store.search(LOCAL_OWNER, "green")
        assert [hit.position for hit in store.search(LOCAL_OWNER, "green")] == [0]
    assert contents(path, conversation) == ["green tea", "black tea"]
    assert not list(path.parent.glob("*damaged*"))


def test_what_a_killed_backup_left_is_swept(path: Path) -> None:
    filled(path, "x")
    left = [
        path.with_name(name)
        for name in (".talk.db.backup.new", ".talk.db.backup.new-journal", ".talk.db.new")
    ]
    for file in left:
        file.write_bytes(b"secret")
    with opened(path):
        assert not any(file.exists() for file in left)


def test_a_database_that_is_taken_away_is_begun_anew(path: Path) -> None:
    conversation = filled(path, "x")
    with opened(path) as store:
        for file in path.parent.glob("talk.db*"):
            file.unlink()
        with pytest.raises(ConversationNotFound):
            store.append(LOCAL_OWNER, conversation, Message("user", "y"))
        again = store.create(LOCAL_OWNER, messages=[Message("user", "z")])
    assert contents(path, again.id) == ["z"]


def test_who_still_has_a_replaced_database_open_does_no_harm_to_the_new_one(path: Path) -> None:
    filled(path, "x")
    with opened(path) as late:
        files.replace_damaged(path)  # as another process does that found it damaged
        with opened(path) as store:
            fresh = store.create(LOCAL_OWNER, messages=[Message("user", "acknowledged")])
            late._database._disconnect()  # SQLite removes a log when the last that knows it lets go
            assert path.with_name("talk.db-wal").stat().st_size > 0
            assert late.messages(LOCAL_OWNER, fresh.id)[0].message.content == "acknowledged"
    assert contents(path, fresh.id) == ["acknowledged"]


def test_an_old_log_is_not_played_into_a_new_database(path: Path) -> None:
    with opened(path) as store:
        store.create(LOCAL_OWNER, messages=[Message("user", "x")])
        log = path.with_name("talk.db-wal").read_bytes()
    path.unlink()
    path.with_name("talk.db-wal").write_bytes(log)
    with opened(path) as store:
        assert store.list(LOCAL_OWNER) == ()
        assert store.notices == ()


# --- backups ---------------------------------------------------------------------------------------------------------


def test_a_backup_is_made_once_a_day(path: Path) -> None:
    filled(path, "x")
    backup = path.with_name("talk.db.backup")
    with opened(path):
        first = backup.stat()
    with opened(path):
        assert backup.stat().st_ino == first.st_ino
    yesterday = time.time() - 86500
    os.utime(backup, (yesterday, yesterday))
    with opened(path):
        assert backup.stat().st_mtime > yesterday + 1000


def test_what_is_deleted_is_gone_from_every_file(path: Path) -> None:
    secret = "xylophone-quartz-0451"
    with opened(path) as store:
        store.create(LOCAL_OWNER, messages=[Message("user", "stays")])
        gone = store.create(
            LOCAL_OWNER, messages=[Message("user", f"{secret} {number}") for number in range(300)]
        )
    with opened(path) as store:  # and so there is a backup with it
        assert secret.encode() in path.with_name("talk.db.backup").read_bytes()
        store.delete(LOCAL_OWNER, gone.id)
        for file in path.parent.iterdir():
            assert secret.encode() not in file.read_bytes(), file.name
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab ('main', 'message_words', 'row')")
            assert other.execute("SELECT term FROM terms WHERE term = 'xyl'").fetchall() == []


# --- versions --------------------------------------------------------------------------------------------------------


def test_a_newer_schema_is_refused_with_both_versions_and_left_alone(path: Path) -> None:
    filled(path, "x")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
        connection.execute("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    with pytest.raises(DatabaseUnusable, match=rf"schema 7, .* up to {len(MIGRATIONS)}\.") as caught:
        ConversationStore.open(path)
    assert caught.value.kind == "newer_schema"
    assert exit_code(caught.value) == 1
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*damaged*"))


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    before = path.read_bytes()
    with pytest.raises(DatabaseUnusable, match="another program"):
        ConversationStore.open(path)
    assert path.read_bytes() == before


def add_column(connection: sqlite3.Connection) -> None:
    """A step that a later version might take."""
    connection.execute("ALTER TABLE conversations ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0")
    connection.execute("UPDATE conversations SET title = title || '!'")


def test_a_step_is_taken_once_after_a_backup(path: Path) -> None:
    filled(path, "x")
    for _ in range(2):
        Database(path, (*MIGRATIONS, add_column)).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT title, pinned FROM conversations").fetchall() == [("x!", 0)]
    with closing(sqlite3.connect(path.with_name("talk.db.backup-schema1"))) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT title FROM conversations").fetchall() == [("x",)]


def test_a_step_that_fails_is_taken_back(path: Path) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        add_column(connection)
        raise sqlite3.OperationalError("no such thing")

    conversation = filled(path, "x")
    with pytest.raises(sqlite3.OperationalError):
        Database(path, (*MIGRATIONS, fail))
    assert contents(path, conversation) == ["x"]


MIGRATING = """
import os, sys, time
from pathlib import Path
from llm_local.conversations.database import Database
from llm_local.conversations.migrations import MIGRATIONS
def step(connection):
    connection.execute("ALTER TABLE conversations ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0")
    connection.execute("CREATE TABLE copies AS SELECT * FROM messages")
    for number in range(200):
        if number == int(sys.argv[2]):
            os.write(1, b"now")
            time.sleep(60)
        connection.execute("UPDATE conversations SET title = ?", (f"{number}" * 500,))
Database(Path(sys.argv[1]), (*MIGRATIONS, step))
"""


@pytest.mark.parametrize("at", [0, 100, 199])
def test_a_process_killed_in_a_step_leaves_the_old_schema(path: Path, at: int) -> None:
    conversation = filled(path, *(f"{number} " * 2000 for number in range(30)))
    before = contents(path, conversation)
    with subprocess.Popen(
        [sys.executable, "-c", MIGRATING, str(path), str(at)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.read(3) == b"now"
        child.kill()
    assert contents(path, conversation) == before
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'copies'").fetchall() == []
    assert not list(path.parent.glob(".*.new")) or at == 0


# --- disks -----------------------------------------------------------------------------------------------------------


FULL = """
import json, resource, signal, sys
from pathlib import Path
from llm_local.conversations.store import ConversationStore
from llm_local.errors import LocalLLMError
from llm_local.messages import Message
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = ConversationStore.open(Path(sys.argv[1]))
talk = store.create("local").id
store.append("local", talk, Message("user", "before"))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
said = []
for text in ("x" * 5_000_000, "y" * 2_000_000):
    try:
        store.append("local", talk, Message("user", text))
    except LocalLLMError as error:
        said.append([type(error).__name__, str(error)])
found = [one.message.content for one in store.messages("local", talk)]
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
store.append("local", talk, Message("user", "after"))
print(json.dumps([talk, said, found, store.notices]))
store.close()
"""


def test_a_full_disk_is_told_and_loses_nothing(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    talk, said, found, notices = json.loads(done.stdout)
    assert [kind for kind, _ in said] == ["StorageError", "StorageError"]
    assert all(str(path) in text for _, text in said)
    assert found == ["before"]
    assert notices == []
    assert contents(path, talk) == ["before", "after"]


def refusal(code: int) -> sqlite3.OperationalError:
    """What SQLite raises when the disk refuses."""
    error = sqlite3.OperationalError("refused")
    error.sqlite_errorcode = code
    return error


def test_what_is_kept_is_not_called_lost_when_the_log_cannot_be_brought_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise refusal(sqlite3.SQLITE_FULL)

    conversation = filled(path, "x")
    with opened(path) as store:
        monkeypatch.setattr(store._database, "_checkpoint", refuse)
        store.append(LOCAL_OWNER, conversation, Message("user", "y"))
        store.delete(LOCAL_OWNER, store.create(LOCAL_OWNER).id)
        assert "Traces of what was deleted may be left" in store.notices[0]
    assert contents(path, conversation) == ["x", "y"]


def test_a_store_that_is_closed_says_so_and_a_draft_outlives_a_variable(path: Path) -> None:
    conversation = filled(path, "x")
    store = ConversationStore.open(path)
    draft = store.begin_reply(LOCAL_OWNER, conversation, model="m")
    database_of_it = store._database
    del store
    draft.finish(Message("assistant", "y"))
    database_of_it.close()
    database_of_it.close()
    with pytest.raises(LocalLLMError, match="is closed"):
        closed = Database(path)
        closed.close()
        with closed.reading():
            pass
    assert contents(path, conversation) == ["x", "y"]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write everywhere, so be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:  # the folders of the tests are closed to anybody else
        folder = Path(name)
        folder.chmod(0o555)
        for place in (folder / "talk.db", folder / "deeper" / "talk.db"):
            with as_nobody(), pytest.raises(StorageError, match="Permission denied") as caught:
                ConversationStore.open(place)
            assert str(folder) in str(caught.value)
            assert "permissions" in caught.value.hint and "space" not in caught.value.hint
            assert exit_code(caught.value) == 6
        assert list(folder.iterdir()) == []
        folder.chmod(0o700)


def test_a_folder_where_a_file_is_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        ConversationStore.open(tmp_path / "file" / "talk.db")


def test_a_backup_that_fails_stops_nobody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = filled(path, "x")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_backup", refuse)
    with opened(path) as store:
        assert store.get(LOCAL_OWNER, conversation).num_messages == 1
        assert "There is no new backup" in store.notices[0]


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "a\0b\0", "😀 e\u0301 \u202e", "\r\n\x1b[2J", "wide 世界 " * 500_000])
def test_any_text_comes_back_as_it_was(path: Path, text: str) -> None:
    conversation = filled(path, text)
    assert contents(path, conversation) == [text]


def test_what_has_no_place_in_a_file_is_refused_before_it_is_kept(path: Path) -> None:
    conversation = filled(path, "x")
    with opened(path) as store:
        for message, param in (
            (Message("assistant", "x", reasoning="\ud800"), "reasoning"),
            (Message("user", "x", name="\udfff"), "name"),
        ):
            with pytest.raises(InvalidRequest) as caught:
                store.append(LOCAL_OWNER, conversation, message)
            assert caught.value.param == param
        for attempt in (
            lambda: store.rename(LOCAL_OWNER, conversation, "\ud800"),
            lambda: store.rename(LOCAL_OWNER, conversation, " "),
            lambda: store.rename(LOCAL_OWNER, conversation, "x" * 201),
            lambda: store.create(""),
            lambda: store.list(LOCAL_OWNER, limit=0),
            lambda: store.search(LOCAL_OWNER, " \0 "),
            lambda: store.search(LOCAL_OWNER, "\ud800"),
            lambda: store.search(LOCAL_OWNER, "x " * 2000),
            lambda: store.append(LOCAL_OWNER, conversation, Message("user", "x" * (65 << 20))),
        ):
            with pytest.raises(InvalidRequest):
                attempt()
    assert contents(path, conversation) == ["x"]


@pytest.mark.parametrize(
    "wrong", ["", "0", "zzzz", "' OR 1=1 --", "ABCDEF0123456789", "%", "x" * 10_000, "\0", "\ud800"]
)
def test_what_cannot_be_an_id_is_not_found(path: Path, wrong: str) -> None:
    filled(path, "x")
    with opened(path) as store, pytest.raises(ConversationNotFound) as caught:
        store.get(LOCAL_OWNER, wrong)
    assert exit_code(caught.value) == 3


def test_the_beginning_of_an_id_is_enough_unless_it_is_of_two(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter(["abcd1" + "0" * 27, "abcd2" + "0" * 27, "abcd1" + "1" * 27])
    monkeypatch.setattr("uuid.uuid4", lambda: type("", (), {"hex": next(ids)}))
    with opened(path) as store:
        one, two, _ = store.create(LOCAL_OWNER), store.create(LOCAL_OWNER), store.create("ada")
        assert store.get(LOCAL_OWNER, "abcd1") == one  # another owner's does not make it unclear
        assert store.get(LOCAL_OWNER, "abcd2") == two
        with pytest.raises(InvalidRequest, match="Several"):
            store.get(LOCAL_OWNER, "abcd")


# --- others ----------------------------------------------------------------------------------------------------------


WRITING = """
import sys
from pathlib import Path
from llm_local.conversations.store import ConversationStore
from llm_local.messages import Message
store = ConversationStore.open(Path(sys.argv[1]))
for number in range(100):
    store.append("local", sys.argv[2], Message("user", f"{sys.argv[3]} {number} " + "long " * 2000))
    store.search("local", "long", limit=1)
store.close()
"""


def test_several_processes_and_threads_share_a_database(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_CHECKPOINT_BYTES", 200_000)
    conversation = filled(path)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITING, str(path), conversation, f"p{which}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for which in range(2)
    ]
    with opened(path) as store:
        failed: list[Exception] = []

        def write(name: str) -> None:
            try:
                for number in range(50):
                    store.append(LOCAL_OWNER, conversation, Message("user", f"{name} {number} "))
                    store.messages(LOCAL_OWNER, conversation)
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=(f"t{which}",)) for which in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for child in children:
            assert child.communicate(timeout=60)[1] == ""
        assert failed == []
    said = [tuple(text.split()[:2]) for text in contents(path, conversation)]
    for name, count in (("p0", 100), ("p1", 100), ("t0", 50), ("t1", 50), ("t2", 50)):
        assert [number for who, number in said if who == name] == [str(number) for number in range(count)]
    assert len(said) == 350
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_process_that_holds_on_makes_others_busy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.05)
    conversation = filled(path, "x")
    with opened(path) as store:
        with locked(path.with_name("talk.db.lock")), pytest.raises(Busy) as caught:
            store.append(LOCAL_OWNER, conversation, Message("user", "y"))
        assert exit_code(caught.value) == 8
        store.append(LOCAL_OWNER, conversation, Message("user", "z"))
    assert contents(path, conversation) == ["x", "z"]


def test_a_draft_meets_what_happens_meanwhile(path: Path) -> None:
    conversation = filled(path, "question", "old answer")
    with opened(path) as store, opened(path) as other:
        anew = store.begin_reply(LOCAL_OWNER, conversation, model="m", at=1)
        other.append(LOCAL_OWNER, conversation, Message("user", "from elsewhere"))
        anew.finish(Message("assistant", "new answer"))
        assert contents(path, conversation) == ["question", "from elsewhere", "new answer"]
        draft = store.begin_reply(LOCAL_OWNER, conversation, model="m")
        draft.update(Message("assistant", "ha"))
        other.cut(LOCAL_OWNER, conversation, 1)
        found: StoredMessage = draft.finish(Message("assistant", "half no more"))
        assert (found.position, contents(path, conversation)) == (1, ["question", "half no more"])
        draft = store.begin_reply(LOCAL_OWNER, conversation, model="m")
        other.delete(LOCAL_OWNER, conversation)
        with pytest.raises(ConversationNotFound):
            draft.finish(Message("assistant", "x"))


def test_an_interrupt_takes_a_change_back_and_the_store_goes_on(path: Path) -> None:
    conversation = filled(path, "x")
    with opened(path) as store:
        with pytest.raises(KeyboardInterrupt), store._database.writing() as connection:
            connection.execute("DELETE FROM messages")
            raise KeyboardInterrupt
        assert len(store.messages(LOCAL_OWNER, conversation)) == 1
        store.append(LOCAL_OWNER, conversation, Message("user", "y"))
