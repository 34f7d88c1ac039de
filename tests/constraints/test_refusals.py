"""What is wrong with a constraint, in one line that says where."""

from __future__ import annotations

import pytest

from llm_local.constraints.compiler import check_constraint
from llm_local.constraints.refusals import first_line
from llm_local.errors import InvalidRequest
from llm_local.options import Constraint


@pytest.mark.parametrize(
    ("constraint", "parts"),
    [
        (Constraint("regex", "x(a"), ["unclosed group", "character 2, '(a'"]),
        (Constraint("regex", "é[z-a]"), ["character class range", "character 3, 'z-a]'"]),
        (Constraint("regex", "a(?=b)"), ["look-around", "character 2"]),
        (Constraint("regex", "a\nb(c"), ["unclosed group at '(c'"]),  # shown escaped, so no number
        (Constraint("grammar", "start: foo"), ["line 1, column 8", "unknown name", "foo"]),
        (Constraint("grammar", "start: ("), ["line 1, column 9", "Expected token ')'"]),
        (Constraint("grammar", 'start: "a" b\nb: /x(/'), ["line 2, column 4", "character 2, '('"]),
        (Constraint("grammar", 'root ::= "a" ('), ["Expected ')' in line 1, behind", '"a" (']),
        (Constraint("grammar", "root ::= foo"), ["Rule 'foo' not found"]),
        (Constraint("json_schema", {"type": "string", "pattern": "(a"}), ["unclosed group", "at #."]),
        (
            Constraint(
                "json_schema", {"properties": {"a": {"items": {"type": "string", "pattern": "x(?=b)"}}}}
            ),
            ["look-around", "character 2", "at #/properties/a/items."],
        ),
        (
            Constraint(
                "json_schema",
                {"$defs": {"q": {"type": "integer", "minimum": 5, "maximum": 1}}, "$ref": "#/$defs/q"},
            ),
            ["minimum (5) is greater than maximum (1)", "at #/$defs/q."],
        ),
        (Constraint("json_schema", {"oneOf": [{"type": "string"}, {"minLength": 1}]}), ["oneOf", "at #."]),
        (Constraint("regex", r"[^\s\S]"), ["satisfied by no reply."]),
        (Constraint("lark", "start: start"), ["satisfied by no reply."]),
    ],
)
def test_the_reason_is_one_line_that_says_where(constraint: Constraint, parts: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_constraint(constraint)
    message = caught.value.message
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message
    for layout in ("^", "|", "(in regex)", "1(", "json-schema:///", "NoExtension"):
        assert layout not in message.replace("'(?=b)'", "").replace("'|'", ""), layout
    assert caught.value.param == "constraint"


def test_what_is_not_known_is_told_as_it_is() -> None:
    assert first_line("something\n  new <non-verbose/>\n") == "something new"
    assert len(first_line("x" * 1000)) == 300
