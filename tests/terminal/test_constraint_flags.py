"""Flags that constrain the answer: what they read, and each mistake in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from llm_local.errors import InvalidRequest
from llm_local.options import Constraint
from llm_local.terminal.constraint_flags import check_given_constraint
from llm_local.terminal.flags import request_options
from terminal.test_flags import script  # noqa: F401  (a fixture)

SCHEMA = {"type": "object", "properties": {"größe": {"type": "integer"}}}
GBNF = 'root ::= "a" | "b"'


def constraint_of(script: ModuleType, *words: str) -> Constraint | None:  # noqa: F811
    return request_options(script.make_parser().parse(words)).get("constraint")


def test_each_flag_gives_its_constraint(script: ModuleType, tmp_path: Path) -> None:  # noqa: F811
    lark = tmp_path / "a.lark"
    lark.write_text('start: "a"', encoding="utf-8")
    gbnf = tmp_path / "a.GBNF"
    gbnf.write_text(GBNF, encoding="utf-8")
    cases = [
        ([], None),
        (["--json-mode"], Constraint("json")),
        (["--json-schema", json.dumps(SCHEMA)], Constraint("json_schema", SCHEMA)),
        (["--json-schema", f"  {json.dumps(SCHEMA)}"], Constraint("json_schema", SCHEMA)),
        (["--regex", "--x{2}"], None),
        (["--regex=-x{2}"], Constraint("regex", "-x{2}")),
        (["--choice", "yes", "--choice", "no"], Constraint("choice", ("yes", "no"))),
        (["--grammar", GBNF], Constraint("grammar", GBNF)),
        (["--grammar", 'start: "a"'], Constraint("grammar", 'start: "a"')),
        (["--grammar", str(lark)], Constraint("lark", 'start: "a"')),
        (["--grammar", str(gbnf)], Constraint("gbnf", GBNF)),
    ]
    for words, constraint in cases:
        if words == ["--regex", "--x{2}"]:
            with pytest.raises(InvalidRequest, match="--regex"):
                constraint_of(script, *words)
        else:
            assert constraint_of(script, *words) == constraint


def test_a_schema_may_be_a_file(script: ModuleType, tmp_path: Path) -> None:  # noqa: F811
    for encoding in ("utf-8", "utf-8-sig"):
        path = tmp_path / "my schema.json"
        path.write_text(json.dumps(SCHEMA, ensure_ascii=False), encoding=encoding)
        assert constraint_of(script, "--json-schema", str(path)) == Constraint("json_schema", SCHEMA)


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["--json-mode", "--regex", "a"], "not allowed with"),
        (["--choice", "a", "--json-schema", "{}"], "not allowed with"),
        (["--json-schema", "{}", "--json-schema", "nothere.json"], "nothere.json"),
        (["--json-schema", "{oops}"], "not valid JSON"),
        (["--json-schema", ""], "cannot be read"),
        (["--json-schema", "/"], "cannot be read"),
        (["--json-schema", "nul\0"], "cannot be read"),
        (["--grammar", "missing.gbnf"], "missing.gbnf"),
        (["--grammar", ""], "cannot be read"),
        (["--regex", ""], "empty"),
        (["--choice", ""], "empty"),
        (["--regex", "\udcff"], "surrogate"),
    ],
)
def test_a_mistake_is_named_by_its_flag(script: ModuleType, words: list[str], word: str) -> None:  # noqa: F811
    with pytest.raises(InvalidRequest, match=word) as caught:
        constraint_of(script, *words)
    assert "--" in caught.value.message


def test_files_that_are_no_text_or_too_large_are_refused(script: ModuleType, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "x.json"
    for data, word in (
        (b"\xff\xfe{", "UTF-8"),
        (b" " * 300_000, "bytes"),
        (b"[]", "JSON object"),
        (b"", "JSON"),
    ):
        path.write_bytes(data)
        with pytest.raises(InvalidRequest, match=word):
            constraint_of(script, "--json-schema", str(path))


@pytest.mark.parametrize(
    ("words", "flag", "what"),
    [
        (["--regex", "x(a"], "--regex", "unclosed group at character 2"),
        (["--grammar", "start: foo"], "--grammar", "line 1, column 8: unknown name"),
        (["--grammar", 'root ::= "a" ('], "--grammar", "Expected ')' in line 1"),
        (["--json-schema", '{"items": {"pattern": "(", "type": "string"}}'], "--json-schema", "at #/items"),
        (["--json-schema", '{"not": {}}'], "--json-schema", "'not' at #"),
    ],
)
def test_what_no_model_can_keep_names_its_flag(
    script: ModuleType,  # noqa: F811
    words: list[str],
    flag: str,
    what: str,
) -> None:
    constraint = constraint_of(script, *words)
    assert constraint is not None
    with pytest.raises(InvalidRequest) as caught:
        check_given_constraint(constraint)
    assert caught.value.message.startswith(f"{flag}: ")
    assert what in caught.value.message
    assert caught.value.param == flag
    check_given_constraint(Constraint("choice", ("a", "b")))
