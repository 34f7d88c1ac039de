"""All SQL that reads or changes conversations, in one place, so that one test sees each of it name the owner.

Every statement is bound with `:owner`, and `OWNED` is how a conversation is found: by its number *and* its owner.
"""

# Statements are put together from constants of this module alone; whatever a caller says is bound.
# ruff: noqa: S608
from __future__ import annotations

from typing import Final

__all__ = [
    "ADD_CONVERSATION",
    "ADD_MESSAGE",
    "CHECK_INDEXES",
    "COUNT_MESSAGES",
    "CUT",
    "DELETE_CONVERSATION",
    "DELETE_MESSAGE",
    "FIND",
    "INDEX_MESSAGE",
    "INDEX_TITLE",
    "LAST_MESSAGE",
    "LIST",
    "MERGE_INDEXES",
    "POSITION",
    "READ_MESSAGES",
    "REBUILD_INDEXES",
    "REWRITE_MESSAGE",
    "SET_MODEL",
    "SET_TITLE",
    "TOUCH",
    "UNINDEX_MESSAGE",
    "UNINDEX_TITLE",
    "VIEW",
    "search_messages",
    "search_titles",
]

OWNED: Final = "(SELECT seq FROM conversations WHERE seq = :seq AND owner = :owner)"
_NEXT: Final = "(SELECT coalesce(max(touched), 0) + 1 FROM conversations WHERE owner = :owner)"
_COLUMNS: Final = """c.seq, c.id, c.owner, c.title, c.model, c.created, c.modified,
    (SELECT count(*) FROM messages AS m WHERE m.conversation = c.seq), c.forked_from"""

# An id or the beginning of one: hexadecimal digits come before `g`.
FIND: Final = """SELECT seq, id FROM conversations
    WHERE owner = :owner AND id >= :id AND id < :id || 'g' ORDER BY id LIMIT 2"""
VIEW: Final = f"SELECT {_COLUMNS} FROM conversations AS c WHERE c.seq = :seq AND c.owner = :owner"
LIST: Final = f"""SELECT {_COLUMNS} FROM conversations AS c WHERE c.owner = :owner
    AND (:before IS NULL OR c.touched < (SELECT touched FROM conversations WHERE seq = :before AND owner = :owner))
    ORDER BY c.touched DESC LIMIT :limit"""
ADD_CONVERSATION: Final = f"""INSERT INTO conversations
    (id, owner, title, model, created, modified, touched, forked_from)
    VALUES (:id, :owner, :title, :model, :now, :now, {_NEXT}, :forked_from)"""
TOUCH: Final = f"UPDATE conversations SET modified = :now, touched = {_NEXT} WHERE seq = {OWNED}"
SET_TITLE: Final = f"UPDATE conversations SET title = :title WHERE seq = {OWNED}"
SET_MODEL: Final = f"UPDATE conversations SET model = :model WHERE seq = {OWNED}"
DELETE_CONVERSATION: Final = f"DELETE FROM conversations WHERE seq = {OWNED}"
UNINDEX_TITLE: Final = f"DELETE FROM title_words WHERE rowid = {OWNED}"
INDEX_TITLE: Final = f"INSERT INTO title_words (rowid, text) SELECT seq, :text FROM {OWNED}"

_MESSAGE: Final = f"(SELECT seq FROM messages WHERE seq = :message AND conversation = {OWNED})"
READ_MESSAGES: Final = f"""SELECT role, content, details, status, facts, created FROM messages
    WHERE conversation = {OWNED} ORDER BY seq LIMIT :up_to"""
COUNT_MESSAGES: Final = f"SELECT count(*) FROM messages WHERE conversation = {OWNED}"
LAST_MESSAGE: Final = f"SELECT coalesce(max(seq), 0) FROM messages WHERE conversation = {OWNED}"
POSITION: Final = f"SELECT count(*) FROM messages WHERE conversation = {OWNED} AND seq < :message"
ADD_MESSAGE: Final = f"""INSERT INTO messages (conversation, role, content, details, status, facts, created)
    SELECT seq, :role, :content, :details, :status, :facts, :created FROM {OWNED}"""
REWRITE_MESSAGE: Final = f"""UPDATE messages
    SET role = :role, content = :content, details = :details, status = :status, facts = :facts
    WHERE seq = {_MESSAGE}"""
DELETE_MESSAGE: Final = f"DELETE FROM messages WHERE seq = {_MESSAGE}"
INDEX_MESSAGE: Final = f"INSERT INTO message_words (rowid, text) SELECT seq, :text FROM {_MESSAGE}"
UNINDEX_MESSAGE: Final = f"DELETE FROM message_words WHERE rowid = {_MESSAGE}"
# From a position on, but nothing that came after the message `:until`.
CUT: Final = f"""DELETE FROM messages WHERE seq <= :until AND seq IN
    (SELECT seq FROM messages WHERE conversation = {OWNED} ORDER BY seq LIMIT -1 OFFSET :position)"""

# Care of the indexes of words, which have no owners; nothing is read from them here.
_INDEXES: Final = ("message_words", "title_words")
# What is deleted stays in an index until its parts are merged.
MERGE_INDEXES: Final = tuple(f"INSERT INTO {name} ({name}) VALUES ('optimize')" for name in _INDEXES)
CHECK_INDEXES: Final = tuple(f"INSERT INTO {name} ({name}) VALUES ('integrity-check')" for name in _INDEXES)
REBUILD_INDEXES: Final = tuple(f"INSERT INTO {name} ({name}) VALUES ('rebuild')" for name in _INDEXES)


def search_messages(*, long: bool, short: bool) -> str:
    """Messages of an owner with all words: `:query` of those the index knows, `:short` of those too short for it."""
    # The position is counted for what is found and shown, not for all that matches.
    return f"""SELECT found.conversation, m.role, m.content,
        (SELECT count(*) FROM messages AS e WHERE e.conversation = found.conversation AND e.seq < m.seq)
        FROM (SELECT c.seq AS conversation, c.touched AS touched, m.seq AS message
            FROM messages AS m JOIN conversations AS c ON c.seq = m.conversation
            WHERE c.owner = :owner {_matching("m.seq", "message_words", "m.content", long, short)}
            ORDER BY c.touched DESC, m.seq DESC LIMIT :limit) AS found
        JOIN messages AS m ON m.seq = found.message
        ORDER BY found.touched DESC, m.seq DESC"""


def search_titles(*, long: bool, short: bool) -> str:
    """Conversations of an owner with all words in the title."""
    return f"""SELECT c.seq, 'title', c.title, 0 FROM conversations AS c
        WHERE c.owner = :owner {_matching("c.seq", "title_words", "c.title", long, short)}
        ORDER BY c.touched DESC LIMIT :limit"""


def _matching(row: str, table: str, text: str, long: bool, short: bool) -> str:
    indexed = f"AND {row} IN (SELECT rowid FROM {table} WHERE {table} MATCH :query)" if long else ""
    scanned = f"AND contains_all({text}, :short)" if short else ""
    return f"{indexed} {scanned}"
