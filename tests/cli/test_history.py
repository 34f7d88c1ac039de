"""`llm-local history` as people, pipes and scripts meet it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llm_local.cli.history import ACTIONS, add_flags, run
from llm_local.conversations.records import LOCAL_OWNER, ReplyFacts
from llm_local.conversations.store import ConversationStore, conversations_path
from llm_local.conversations.transcript import from_json
from llm_local.errors import ConversationNotFound, InvalidRequest, LocalLLMError, StorageError
from llm_local.messages import Message, ToolCall
from llm_local.terminal.flag_parser import FlagParser
from llm_local.terminal.streams import AnswerWriter, Messages

EVIL = "tea\x1b]0;gone\x07 \x1b[2J\u202e time"


def history(*words: str, terminal: bool = False) -> tuple[str, str]:
    """Run the verb in this process; what went to stdout and to stderr. An error is raised, as in the program."""
    out, out_end = pty.openpty() if terminal else os.pipe()
    err, err_end = os.pipe()
    try:
        parser = FlagParser()
        add_flags(parser)
        parser.add_argument("--debug", action="store_true")
        args = parser.parse_intermixed_args(words)
        with open(out_end, "wb", buffering=0) as to_out, open(err_end, "wb", buffering=0) as to_err:
            run(args, AnswerWriter(to_out), Messages(to_err))
            if terminal:
                return os.read(out, 1 << 16).decode(), ""
        return read_all(out), read_all(err)
    finally:
        os.close(out)
        os.close(err)


def read_all(descriptor: int) -> str:
    """What is in a pipe whose other end is closed."""
    found = b""
    while chunk := os.read(descriptor, 1 << 16):
        found += chunk
    return found.decode()


@pytest.fixture
def ids() -> list[str]:
    """Three conversations, the one of another owner among them; their ids."""
    store = ConversationStore.open()
    first = store.create(LOCAL_OWNER, messages=[Message("system", "Be brief."), Message("user", EVIL)])
    draft = store.begin_reply(LOCAL_OWNER, first.id, model="starter")
    call = ToolCall("1", "look", {"at": "世界"})
    draft.interrupt(
        Message("assistant", "Leaves and wa", reasoning="Hm.\nTea?", tool_calls=(call,)),
        ReplyFacts("starter"),
    )
    second = store.create(LOCAL_OWNER, title="Tour 世界", messages=[Message("user", "Where\tto?")])
    other = store.create("ada", messages=[Message("user", "tea for ada")])
    store.close()
    return [first.id, second.id, other.id]


def test_an_empty_machine_stays_empty() -> None:
    assert history() == ("", "There are no conversations yet.\n")
    assert history("search", "x", "--json")[0] == "[]\n"
    assert not conversations_path().parent.exists()
    with pytest.raises(ConversationNotFound):
        history("show", "0" * 32)


def test_a_pipe_gets_whole_ids_and_harmless_titles(ids: list[str]) -> None:
    lines = [line.split("\t") for line in history("list")[0].splitlines()]
    assert [line[0] for line in lines] == [ids[1], ids[0]]
    assert [line[2:] for line in lines] == [
        ["1", "", "Tour 世界"],
        ["3", "starter", r"tea\x1b]0;gone\x07 \x1b[2J\u202e time"],
    ]
    assert datetime.fromisoformat(lines[0][1]).utcoffset() is not None


def test_a_terminal_gets_a_table_and_no_foreign_escape_sequence(ids: list[str]) -> None:
    for words in (["list"], ["search", "tea"], ["show", ids[0]], ["show", ids[0], "--markdown"]):
        shown = history(*words, terminal=True)[0]
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown
    assert history("list", terminal=True)[0].splitlines()[0].split() == [
        "ID",
        "USED",
        "MESSAGES",
        "MODEL",
        "TITLE",
    ]


def test_json_is_for_programs(ids: list[str]) -> None:
    (second, first) = json.loads(history("--json")[0])
    assert (first["id"], first["title"], first["num_messages"]) == (ids[0], " ".join(EVIL.split()), 3)
    assert (second["id"], second["model"], second["forked_from"]) == (ids[1], None, None)
    (hit,) = json.loads(history("search", "GONE", "--json")[0])
    assert (hit["id"], hit["position"], hit["role"]) == (ids[0], 1, "user")


def test_pages_of_the_list(ids: list[str]) -> None:
    assert [one["id"] for one in json.loads(history("list", "--limit", "1", "--json")[0])] == [ids[1]]
    assert [one["id"] for one in json.loads(history("list", "--before", ids[1], "--json")[0])] == [ids[0]]
    assert history("list", "--before", ids[0]) == ("", "There are no more conversations.\n")


def test_search_takes_words_as_they_are(ids: list[str]) -> None:
    assert history("search", "leaves", "wa")[0].split("\t")[:3] == [ids[0], "2", "assistant"]
    assert history("search", "界")[0].split("\t")[:3] == [ids[1], "0", "title"]
    for text in ('"', "tea OR x", "tea*", "NEAR(tea)", "-tea", "text:tea"):
        assert history("search", "--", text) == ("", "Nothing was found.\n")
    assert "ada" not in history("search", "tea")[0]


def test_show_is_to_be_read_from_top_to_bottom(ids: list[str]) -> None:
    shown = history("show", ids[0][:8])[0]
    title, about, rest = shown.split("\n", 2)
    assert title == " ".join(EVIL.split())
    assert about.startswith(f"{ids[0]}, ")
    assert rest == (
        f"\nsystem:\nBe brief.\n\nuser:\n{EVIL}\n\nassistant (interrupted):\n| Hm.\n| Tea?\nLeaves and wa\n"
        '-> look {"at": "世界"}\n'
    )
    assert history("show", ids[0], "--markdown")[0].startswith("# tea")
    assert from_json(history("show", ids[0], "--json")[0]).messages[2].status == "interrupted"


def test_another_owners_conversation_is_not_there(ids: list[str]) -> None:
    for words in (["show", ids[2]], ["rm", ids[2]], ["rename", ids[2], "x"], ["export", ids[2], "x.json"]):
        with pytest.raises(ConversationNotFound):
            history(*words)


def test_export_writes_what_the_name_says_and_nothing_over_anything(ids: list[str], tmp_path: Path) -> None:
    for name, start in (("a.md", "# tea"), ("b.json", "{"), ("c", "{")):
        history("export", ids[0], str(tmp_path / name))
        assert (tmp_path / name).read_text().startswith(start)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    history("export", ids[0], str(tmp_path / "d.md"), "--json")
    assert from_json((tmp_path / "d.md").read_bytes()).messages[1].message.content == EVIL
    with pytest.raises(InvalidRequest, match="is there already"):
        history("export", ids[1], str(tmp_path / "c"))
    assert "Tour" not in (tmp_path / "c").read_text()
    history("export", ids[1], str(tmp_path / "c"), "--force")
    assert "Tour" in (tmp_path / "c").read_text()
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    for name, kind in (("link", InvalidRequest), (".", InvalidRequest), ("none/x", StorageError)):
        with pytest.raises(kind):
            history("export", ids[0], str(tmp_path / name), "--force")
    assert not (tmp_path / "victim").exists()


def test_rename_and_rm(ids: list[str]) -> None:
    assert history("rename", ids[0], "Of", "tea")[1] == f"{ids[0]} is now called Of tea\n"
    out, err = history("rm", ids[0], ids[0][:8], "--json")
    assert err == f"removed {ids[0]} Of tea\n"
    assert [one["id"] for one in json.loads(out)] == [ids[0]]
    with pytest.raises(ConversationNotFound):
        history("rm", ids[1], "0000")
    assert len(json.loads(history("--json")[0])) == 1, "all or none"
    with pytest.raises(InvalidRequest, match="for good"):
        history("rm", "--all")
    history("rm", "--all", "--force")
    assert history()[0] == ""
    store = ConversationStore.open()
    assert store.list("ada")[0].num_messages == 1
    store.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serch", "x"], "Did you mean `history search`"),
        (["show"], "history show ID"),
        (["show", "a", "b"], "history show ID"),
        (["search"], "history search TEXT"),
        (["search", " "], "nothing to search for"),
        (["rename", "abcd"], "history rename ID TITLE"),
        (["rm"], "Say which"),
        (["rm", "--all", "--force", "abcd"], "Say which"),
        (["list", "x"], "does not take 1 words"),
        (["list", "--markdown"], "no use for --markdown"),
        (["show", "abcd", "--limit", "3"], "no use for --limit"),
        (["show", "abcd", "--json", "--markdown"], "cannot both be"),
        (["list", "--limit", "0"], "is not a number from 1 to 1000"),
        (["list", "--limit", "x"], "is not a number from 1 to 1000"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(ids: list[str], words: list[str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        history(*words)


def test_damage_is_told_on_stderr(ids: list[str]) -> None:
    conversations_path().write_bytes(b"junk" * 5000)
    out, err = history("list")
    assert "damaged" in err
    assert err.startswith("warning: ")
    assert out == ""


def program(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The program itself."""
    return subprocess.run(
        [sys.executable, "-m", "llm_local.cli.main", "history", *words],
        **{"capture_output": True, "text": True, "check": False, "timeout": 60, **options},
    )


def test_the_program_ends_as_the_table_of_exit_codes_says(ids: list[str]) -> None:
    assert program("list").returncode == 0
    gone = program("show", "1234567890")
    assert (gone.returncode, gone.stdout) == (3, "")
    assert gone.stderr.count("\n") == 1
    conversations_path().unlink()
    for side in conversations_path().parent.glob("*.backup"):
        side.unlink()
    conversations_path().mkdir()
    assert program("show", "1234567890").returncode == 1
    with open("/dev/full", "wb") as full:
        assert program("--help", capture_output=False, stdout=full, stderr=subprocess.DEVNULL).returncode == 6


def test_nothing_heavy_is_loaded(ids: list[str]) -> None:
    code = (
        "import sys, llm_local.cli.main as m; m.main(['history', 'list']); "
        "print(sorted({'torch', 'transformers', 'numpy', 'pydantic', 'rich', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_action_is_in_the_help() -> None:
    parser = FlagParser()
    add_flags(parser)
    text = " ".join(parser.format_help().split())
    assert all(action.usage in text for action in ACTIONS.values())
    assert issubclass(ConversationNotFound, LocalLLMError)
