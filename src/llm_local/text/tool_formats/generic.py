"""Models whose template knows no tools: they are told of them in the system prompt, and answer as in `hermes`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.json_body import json_body

__all__ = ["FORMAT", "without_tools"]

FORMAT: Final = ToolFormat(
    name="generic",
    fits=lambda source: True,
    make_body=json_body(broken_by="\n</tool_call>"),
    starts=("<tool_call>",),
    ends=("</tool_call>",),
    bare_starts=("{",),
    envelope=Envelope("<tool_call>\n"),
)


def without_tools(
    turns: Sequence[Mapping[str, Any]], tools: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The same conversation for a template that knows system, user and assistant, and text, and nothing else.

    `tools` are described where the conversation begins, calls are text of the assistant, results are text of the user.
    """
    rewritten: list[dict[str, Any]] = []
    for turn in turns:
        text = turn["content"]
        if turn["role"] == "tool":
            text = f"The result of the tool:\n{text}"
            if (
                rewritten and rewritten[-1]["role"] == "user"
            ):  # several results: templates want roles in turns
                rewritten[-1]["content"] += f"\n\n{text}"
            else:
                rewritten.append({"role": "user", "content": text})
            continue
        calls = [_written_call(**call["function"]) for call in turn.get("tool_calls", ())]
        kept = {name: value for name, value in turn.items() if name != "tool_calls"}
        rewritten.append(kept | {"content": "\n".join([*([text] if text else []), *calls])})
    described = _instructions(tools)
    if described and rewritten:
        first = rewritten[0]
        # not every template takes a system prompt, so none is made
        pair = [first["content"], described] if first["role"] == "system" else [described, first["content"]]
        first["content"] = "\n\n".join(pair)
    return rewritten


def _instructions(tools: Iterable[Mapping[str, Any]]) -> str:
    described = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    if not described:
        return ""
    return (
        "You may call these tools, each described by a line of JSON:\n"
        f"{described}\n"
        "To call one, reply with nothing but:\n"
        '<tool_call>\n{"name": <its name>, "arguments": <its arguments as a JSON object>}\n</tool_call>\n'
        "Its result comes as the next message."
    )


def _written_call(name: str, arguments: Any) -> str:
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"
