"""A process that chats into a store until it is killed, and says on stdout what it was told is kept.

    killed_writer.py DATABASE CONVERSATION ROUND

Lines are `position TAB status TAB content`, each written after the store returned.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path

from llm_local.conversations.records import LOCAL_OWNER, ReplyFacts, StoredMessage
from llm_local.conversations.store import ConversationStore
from llm_local.messages import Message


def acknowledge(stored: StoredMessage) -> None:
    """Say that a message is kept, in one write."""
    os.write(1, f"{stored.position}\t{stored.status}\t{stored.message.content}\n".encode())


def main() -> None:
    """Ask and answer, each answer in pieces; every third is answered anew."""
    path, conversation, part = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    store = ConversationStore.open(path)
    for number in count():
        name = f"{part}.{number}"
        acknowledge(store.append(LOCAL_OWNER, conversation, Message("user", f"question {name}")))
        draft = store.begin_reply(LOCAL_OWNER, conversation, model="m")
        for piece in ("ha", "half", "half " * 2000):
            draft.update(Message("assistant", f"answer {name} {piece}"))
        stored = draft.finish(Message("assistant", f"answer {name} whole"), ReplyFacts("m", "stop"))
        acknowledge(stored)
        if number % 3 == 2:
            again = store.begin_reply(LOCAL_OWNER, conversation, model="m", at=stored.position)
            again.update(Message("assistant", f"anew {name} half"))
            acknowledge(again.finish(Message("assistant", f"anew {name} whole"), ReplyFacts("m", "stop")))


if __name__ == "__main__":
    main()
