"""Docstrings in the three common styles, and in none."""

from __future__ import annotations

import pytest

from llm_local.tools.docstrings import read_docstring

GOOGLE = """Get the weather.

    Of one city only.

    Args:
        city: The city,
            as people write it.
        unit (str, optional): Celsius or
            not: it is asked for.

    Returns:
        city: no parameter.
    """
NUMPY = """Get the weather.

    Of one city only.

    Parameters
    ----------
    city : str
        The city,
        as people write it.
    unit
        Celsius or not: it is asked for.

    Returns
    -------
    str
        Text.
    """
SPHINX = """Get the weather.

    Of one city only.

    :param city: The city,
        as people write it.
    :param str unit: Celsius or not: it is asked for.
    :returns: Text.
    :rtype: str
    """


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_what_it_does_and_what_its_parameters_mean(text: str) -> None:
    said, described = read_docstring(text)
    assert said == "Get the weather.\n\nOf one city only."
    assert described == {
        "city": "The city, as people write it.",
        "unit": "Celsius or not: it is asked for.",
    }


@pytest.mark.parametrize(
    "text",
    [
        "Parameters are read from the file.",
        "Note: see below.\n\nA list:\n    a: b",
        "Examples of this",
        "One.\n\nExample in a sentence: it works.",
    ],
)
def test_plain_text_stays_whole(text: str) -> None:
    assert read_docstring(text) == (text, {})


def test_nothing_says_nothing() -> None:
    assert read_docstring(None) == ("", {})
    assert read_docstring("\n   \n") == ("", {})


def test_sections_that_are_not_for_the_model_are_left_out() -> None:
    said, described = read_docstring("Do it.\n\nRaises:\n    ValueError: never.\n\nNot on Sundays.")
    assert said == "Do it.\n\nNot on Sundays."
    assert described == {}
