"""Write the generated pages: `.env.example`, `docs/settings.md`, `docs/architectures.md`, and parts of two others.

Those are the table of commands in `docs/chat.md`, and the routes, options and errors in `docs/api.md`.

./run.sh scripts/generate_docs.py            write them
./run.sh scripts/generate_docs.py --check    write nothing; exit 1 when one is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from api.api_page import openapi_document, with_routes  # type: ignore[import-not-found]  # noqa: E402
from llm_local.chat.command_table import with_commands  # noqa: E402
from llm_local.config import env_example, settings_markdown  # noqa: E402
from tiny_models import architectures_markdown  # type: ignore[import-not-found]  # noqa: E402


def main(arguments: list[str]) -> int:
    """Write or check the generated pages; returns the exit status."""
    chat, api = ROOT / "docs" / "chat.md", ROOT / "docs" / "api.md"
    pages = {
        api: with_routes(api.read_text("utf-8"), openapi_document()),
        chat: with_commands(chat.read_text("utf-8")),
        ROOT / ".env.example": env_example(),
        ROOT / "docs" / "settings.md": settings_markdown(),
        ROOT / "docs" / "architectures.md": architectures_markdown(),
    }
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if "--check" not in arguments:
            path.write_text(pages[path], "utf-8")
        print(
            f"{path.relative_to(ROOT)}: {'stale' if '--check' in arguments else 'written'}", file=sys.stderr
        )
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
