"""A function as a tool: what the model reads of it, what it gets, and what is refused."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import Field

from llm_local.errors import InvalidRequest
from llm_local.messages import ToolDefinition
from llm_local.options import GenerationOptions
from llm_local.tools.functions import make_tool
from llm_local.tools.tool import ToolFailure


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


@dataclasses.dataclass
class Place:
    city: str
    country: str = "FR"


class Unknown:
    """Nothing that JSON could say."""


def get_weather(city: str, days: int = 1) -> str:
    """Get the weather in a city.

    Args:
        city: The city.
    """
    return f"{city} {days} {type(days).__name__}"


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    return dict(make_tool(function).definition.parameters)


def test_a_function_is_described_by_name_docstring_and_hints() -> None:
    tool = make_tool(get_weather)
    assert tool.definition == ToolDefinition(
        "get_weather",
        "Get the weather in a city.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city."},
                "days": {"type": "integer", "default": 1},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    )
    assert (tool.source, tool.time_limit_s) == ("function", None)
    assert tool.run({"city": "Lyon"}) == "Lyon 1 int"


def test_name_description_and_time_can_be_said() -> None:
    tool = make_tool(get_weather, name="weather-2", description="Else.", time_limit_s=2.5, source="test")
    assert (tool.name, tool.definition.description) == ("weather-2", "Else.")
    assert (tool.time_limit_s, tool.source) == (2.5, "test")


def test_every_kind_of_hint_becomes_its_schema() -> None:
    def f(
        a: Annotated[int, Field(description="First", ge=0)],
        b: Literal["x", "y"],
        c: Unit,
        d: Optional[float],  # noqa: UP045
        e: list[str],
        f: dict[str, bool],
        g: Place,
        h: int | str = 3,
        i: Any = None,
    ) -> None:
        """Do.

        :param a: Not this.
        """

    assert parameters(f)["properties"] == {
        "a": {"type": "integer", "minimum": 0, "description": "First"},
        "b": {"type": "string", "enum": ["x", "y"]},
        "c": {"type": "string", "enum": ["c", "f"]},
        "d": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "e": {"type": "array", "items": {"type": "string"}},
        "f": {"type": "object", "additionalProperties": {"type": "boolean"}},
        "g": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "country": {"type": "string", "default": "FR"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "h": {"anyOf": [{"type": "integer"}, {"type": "string"}], "default": 3},
        "i": {"default": None},
    }
    assert parameters(f)["required"] == ["a", "b", "c", "d", "e", "f", "g"]


def test_a_typed_dict_is_an_object() -> None:
    if sys.version_info >= (3, 12):
        from typing import TypedDict
    else:
        TypedDict = pytest.importorskip("typing_extensions").TypedDict  # noqa: N806
    kind = TypedDict("kind", {"a": int})
    namespace = {"kind": kind}
    exec("def f(x: kind) -> int:\n    return x['a'] + 1", namespace)
    tool = make_tool(namespace["f"])  # type: ignore[arg-type]
    assert tool.definition.parameters["properties"]["x"]["properties"] == {"a": {"type": "integer"}}
    assert tool.run({"x": {"a": 1}}) == "2"


def test_arguments_become_what_the_hints_say() -> None:
    def f(place: Place, unit: Unit, day: datetime.date, schema: int, model_config: int = 0) -> str:
        return f"{place} {unit} {day:%A} {schema} {model_config}"

    arguments = {"place": {"city": "Lyon"}, "unit": "c", "day": "2024-05-01", "schema": 2}
    said = make_tool(f).run(arguments)
    assert said == "Place(city='Lyon', country='FR') Unit.CELSIUS Wednesday 2 0"


def test_what_is_not_given_is_the_functions_own_default() -> None:
    default = Unknown()

    def f(a: int = 1, b: Any = default) -> str:
        return str(b is default)

    tool = make_tool(f)
    assert tool.definition.parameters["properties"] == {"a": {"type": "integer", "default": 1}, "b": {}}
    assert tool.run({}) == "True"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "city: Field required"),
        ({"city": 3}, "city: Input should be a valid string"),
        ({"city": "x", "no": 1}, "no: Extra inputs"),
    ],
)
def test_wrong_arguments_never_reach_the_function(arguments: dict, said: str) -> None:
    with pytest.raises(ToolFailure, match=said):
        make_tool(get_weather).run(arguments)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("as it is \ud800", "as it is \ud800"),
        (None, "null"),
        (3, "3"),
        ({"b": 1, "a": [True, None]}, '{"b":1,"a":[true,null]}'),
        (Place("Zürich"), '{"city":"Zürich","country":"FR"}'),
        (Unit.CELSIUS, '"c"'),
        (datetime.date(2024, 5, 1), '"2024-05-01"'),
        ((float("nan"), float("inf")), '["NaN","Infinity"]'),
        (enum.StrEnum("E", {"A": "a"}).A, "a"),
    ],
)
def test_results_are_text_or_json(result: Any, text: str) -> None:
    def f() -> Any:
        return result

    assert make_tool(f).run({}) == text


@pytest.mark.parametrize("result", [Unknown(), b"\xff", {Unknown(): 1}])
def test_a_result_that_is_no_json_is_a_failure_that_says_so(result: Any) -> None:
    def f() -> Any:
        return result

    with pytest.raises(ToolFailure, match="returned a .* that cannot be told as JSON"):
        make_tool(f).run({})


def test_a_result_that_holds_itself_is_a_failure() -> None:
    def f() -> Any:
        endless: list[Any] = []
        endless.append(endless)
        return endless

    with pytest.raises(ToolFailure, match="list"):
        make_tool(f).run({})


def test_coroutine_functions_methods_and_wrapped_functions_are_tools() -> None:
    async def later(n: int) -> int:
        return n + 1

    class Shop:
        """A shop."""

        def price(self, item: str) -> str:
            """Say the price."""
            return f"{item}: 3"

    @functools.wraps(get_weather)
    def wrapped(*args: Any, **kwargs: Any) -> str:
        return "wrapped " + get_weather(*args, **kwargs)

    assert make_tool(later).run({"n": 1}) == "2"
    shop = make_tool(Shop().price)
    assert (shop.name, shop.run({"item": "pear"})) == ("price", "pear: 3")
    assert list(shop.definition.parameters["properties"]) == ["item"]
    assert make_tool(wrapped).run({"city": "Lyon"}) == "wrapped Lyon 1 int"
    assert make_tool(wrapped).definition == make_tool(get_weather).definition


def bare(x): ...
def starred(*x: int) -> None: ...
def keywords(**x: int) -> None: ...
def positional(x: int, /) -> None: ...
def strange(x: Unknown) -> None: ...
def called_back(x: Callable[[int], int]) -> None: ...
def unresolved(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def auto() -> None: ...
def größe() -> None: ...
def numbers():
    yield 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (bare, "parameter x of the function bare has no type hint"),
        (starred, r"takes \*x"),
        (keywords, r"takes \*\*x"),
        (positional, "cannot be given by its name"),
        (strange, "strange cannot be described .*Unknown"),
        (called_back, "called_back cannot be described"),
        (unresolved, "hints of the function unresolved cannot be read: .*Nowhere"),
        (auto, "cannot be called 'auto'"),
        (größe, "cannot be called 'größe'"),
        (lambda: 1, "cannot be called '<lambda>'"),
        (numbers, "is a generator"),
        (Unknown, "is no function"),
        (functools.partial(get_weather, "Lyon"), "is no function"),
        (len, "is no function"),
        ("get_weather", "is no function"),
    ],
)
def test_what_cannot_be_described_is_refused_by_name(function: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        make_tool(function)
    assert caught.value.param == "tools" and caught.value.hint


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a.b", "none", "required", "a\n"])
def test_names_that_no_format_can_carry_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be called"):
        make_tool(get_weather, name=name)


def test_the_schema_can_be_forced() -> None:
    """A forced call needs a grammar of the schema: those that hints make are of the kind that has one."""
    from llm_local.constraints.compiler import check_constraint
    from llm_local.options import Constraint

    def f(place: Place, unit: Unit = Unit.CELSIUS, days: list[int] | None = None, n: float = 1) -> None:
        """Do."""

    check_constraint(Constraint("json_schema", parameters(f)))
    assert GenerationOptions(tool_choice="f")
