"""The loop of every helper process of a benchmark: a line of JSON in, a line of JSON out.

Run as a file, with the name of a module: its `answer` gets each object from stdin and returns the reply. A failure is
a reply too, `{"error": text}`, with `missing` where a package is not there. Standard library only and nothing of
llm-local, since the peer's Python may have neither.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["reply_to", "serve"]

_Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def serve(name: str) -> None:
    """Answer every line of stdin until it ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries may print: what they say is no reply
    answer: _Answer = importlib.import_module(name).answer
    for line in sys.stdin:
        replies.write(json.dumps(reply_to(answer, json.loads(line))) + "\n")
        replies.flush()


def reply_to(answer: _Answer, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """The reply of `answer`, or what went wrong."""
    try:
        return answer(asked)
    except ImportError as error:
        return {"error": str(error), "missing": error.name}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    serve(sys.argv[1])
