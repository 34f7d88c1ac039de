"""Editing a text in another program."""

from __future__ import annotations

import pytest

from llm_local.errors import InvalidRequest
from llm_local.terminal.text_editor import edit_text


def script(tmp_path, body: str) -> str:
    path = tmp_path / "an editor.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return f"'{path}' --wait"


def test_what_the_editor_leaves_is_the_text(tmp_path):
    editor = script(tmp_path, 'test "$1" = --wait && stat -c %a "$(dirname "$2")" >>"$2"')
    assert edit_text("begun: ", {"EDITOR": editor}) == "begun: 700"
    assert edit_text("begun: ", {"VISUAL": editor, "EDITOR": "false"}) == "begun: 700"


def test_bytes_that_are_no_text_are_replaced(tmp_path):
    assert edit_text("a", {"EDITOR": script(tmp_path, r'printf "\377" >"$2"')}) == "\ufffd"


@pytest.mark.parametrize("editor", ["false", "/no/such/editor", "'unclosed", "rm"])
def test_an_editor_that_fails_is_named(editor):
    if editor == "rm":
        editor = "rm -f"
    with pytest.raises(InvalidRequest, match="editor"):
        edit_text("text", {"EDITOR": editor})


def test_without_any_editor_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InvalidRequest, match="EDITOR"):
        edit_text("text", {})
