"""A process that says it is a server, as `llm-local serve` will: it registers, waits for SIGTERM, and drains.

    python serving_child.py PORT [DRAIN_S]

Prints a line once it is on the list. A second SIGTERM ends it at once.
"""

from __future__ import annotations

import signal
import sys
import threading

from llm_local.store.servers import Registration


def main() -> None:
    asked, again = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: again.set() if asked.is_set() else asked.set())
    drain_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    with Registration("127.0.0.1", int(sys.argv[1]), model="org/model", memory_bytes=3 * 10**9):
        print("ready", flush=True)
        asked.wait(120)
        again.wait(drain_s)


if __name__ == "__main__":
    main()
