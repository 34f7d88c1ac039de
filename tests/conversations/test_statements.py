"""The owner is in every statement, and statements are nowhere else."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from llm_local.conversations import statements
from llm_local.conversations.migrations import MIGRATIONS

STATEMENTS = {
    **{name: getattr(statements, name) for name in statements.__all__ if name.isupper()},
    **{
        f"{search.__name__} {long} {short}": search(long=long, short=short)
        for search in (statements.search_messages, statements.search_titles)
        for long in (False, True)
        for short in (False, True)
    },
}
for name in ("MERGE_INDEXES", "CHECK_INDEXES", "REBUILD_INDEXES"):
    del STATEMENTS[name]  # which read nothing, and concern all alike


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_is_bound_to_the_owner(name: str) -> None:
    text = STATEMENTS[name]
    if name == "ADD_CONVERSATION":
        assert "VALUES (:id, :owner," in text
    else:
        assert "owner = :owner" in text
    # Each table is reached through the owner: a conversation by its number alone would be anybody's.
    for found in re.finditer(r"conversations( AS c)?\s+WHERE (?P<rest>.{0,200})", text, re.S):
        assert "owner" in found["rest"]
    assert not re.search(r"conversation = :", text)


@pytest.mark.parametrize("name", STATEMENTS)
def test_statements_fit_the_schema_and_use_an_index(name: str) -> None:
    with sqlite3.connect(":memory:", isolation_level=None) as connection:
        for step in MIGRATIONS:
            step(connection)
        connection.create_function("contains_all", 2, lambda text, words: True)
        values = dict.fromkeys(re.findall(r":(\w+)", STATEMENTS[name]), 1)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {STATEMENTS[name]}", values).fetchall()
    connection.close()
    scans = [step[3] for step in plan if step[3].startswith("SCAN") and "VIRTUAL" not in step[3]]
    scans = [scan for scan in scans if scan != "SCAN found"]  # the few rows that a search has chosen
    assert [scan for scan in scans if "SUBQUERY" not in scan and "(subquery" not in scan] == []


def test_statements_are_in_one_place() -> None:
    folder = Path(statements.__file__).parent
    allowed = {"statements.py", "migrations.py"}
    looking = re.compile(r"\b(SELECT .*(owner|seq|content|title)|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b")
    found = {path.name for path in folder.glob("*.py") if looking.search(path.read_text())}
    assert found <= allowed


def test_a_search_costs_no_more_than_in_proportion_to_what_it_finds() -> None:
    assert _search_cost(1600) < 2.5 * _search_cost(800)


def _search_cost(num_messages: int) -> int:
    """Hundreds of instructions that a search takes in one conversation whose messages are all found."""
    cost = [0]

    def count() -> int:
        cost[0] += 1
        return 0

    with sqlite3.connect(":memory:", isolation_level=None) as connection:
        for step in MIGRATIONS:
            step(connection)
        connection.execute(
            "INSERT INTO conversations (id, owner, title, created, modified, touched) VALUES ('a', 'me', '', 0, 0, 1)"
        )
        for _ in range(num_messages):
            row = connection.execute(
                "INSERT INTO messages (conversation, role, content, status, created) "
                "VALUES (1, 'user', 'green tea', 'complete', 0)"
            ).lastrowid
            connection.execute("INSERT INTO message_words (rowid, text) VALUES (?, 'green tea')", (row,))
        connection.set_progress_handler(count, 100)
        values = {"owner": "me", "query": "green", "limit": 10}
        found = connection.execute(statements.search_messages(long=True, short=False), values).fetchall()
    connection.close()
    assert [row[3] for row in found] == list(range(num_messages - 1, num_messages - 11, -1))
    return cost[0]
