"""What an MCP tool answered, as the text that the model reads: nothing left out in silence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["result_text"]

_NAMED_KINDS: Final = {"image": "image", "audio": "audio"}


def result_text(result: Mapping[str, Any]) -> str:
    """The text of a CallToolResult in its form on the wire.

    Texts are joined by line breaks; what is not text is named with its type and size. `structuredContent` is left out
    only where the texts say the same, as the protocol wants them to.
    """
    parts = [_block(block) for block in result.get("content") or ()]
    structured = result.get("structuredContent")
    if structured is not None:
        texts = [block["text"] for block in result.get("content") or () if block.get("type") == "text"]
        if not _says_the_same(texts, structured):
            parts.append(json.dumps(structured, ensure_ascii=False))
    return "\n".join(parts)


def _block(block: Mapping[str, Any]) -> str:
    kind = str(block.get("type"))
    if kind == "text":
        return str(block["text"])
    if kind in _NAMED_KINDS:
        size = _size(len(block.get("data", "")) * 3 // 4)  # it is base64
        return f"[{block.get('mimeType') or _NAMED_KINDS[kind]}, {size}: not shown]"
    if kind == "resource_link":
        return f"[resource {block.get('uri')}{_details(block)}: not fetched]"
    if kind == "resource":
        resource = block.get("resource") or {}
        if "text" in resource:
            return f"[resource {resource.get('uri')}{_details(resource)}]\n{resource['text']}"
        size = _size(len(resource.get("blob", "")) * 3 // 4)
        return f"[resource {resource.get('uri')}{_details(resource)}, {size}: not shown]"
    return f"[{kind}: not shown]"


def _details(block: Mapping[str, Any]) -> str:
    size = block.get("size")
    known = (block.get("mimeType"), None if size is None else _size(int(size)))
    return "".join(f", {one}" for one in known if one)


def _size(num_bytes: int) -> str:
    return f"{num_bytes} bytes" if num_bytes < 1000 else f"{round(num_bytes / 1000)} kB"


def _says_the_same(texts: list[str], structured: Any) -> bool:
    """Whether the texts are the structured value written out: as a whole, or its items one by one."""
    if not texts:
        return False
    values = [structured]
    if isinstance(structured, dict) and structured.keys() == {"result"}:  # how a bare value is wrapped
        values.append(structured["result"])
    whole = "\n".join(texts)
    readings = (whole, _read(whole), [_read(text) for text in texts])
    return any(value in readings for value in values)


def _read(text: str) -> Any:
    """What a text stands for: a value where it is JSON, else itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
