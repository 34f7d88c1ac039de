"""Colors of code depend on what stands above, never on what comes."""

from __future__ import annotations

import time

import pytest

from llm_local.terminal.code_colors import CODE_STYLE, CodeColors

PYTHON = 'def f(x):\n    y = """Says\n    much."""\n    return x  # why\n\nclass A:\n    y = 1\n'


def colors(text) -> list[tuple[str, object]]:
    return [(text.plain[span.start : span.end], span.style) for span in text.spans]


def test_words_have_colors_of_the_theme_and_lines_their_text():
    lines = PYTHON.split("\n")[:-1]
    colored = [CodeColors("python").add(line) for line in lines[:1]][0]
    assert colored.plain == lines[0]
    by_word = {word: style.color.name for word, style in colors(colored)}
    assert by_word["def"] == "#66d9ef" and by_word["f"] == "#a6e22e"


def test_a_line_inside_of_a_string_is_a_string_and_what_comes_changes_nothing():
    alone, followed = CodeColors("python"), CodeColors("python")
    lines = PYTHON.split("\n")
    first = [colors(alone.add(line)) for line in lines[:3]]
    assert first == [colors(followed.add(line)) for line in lines][:3]
    assert first[2][0] == ("    much.", first[1][-1][1]) and first[2][0][1].color.name == "#e6db74"


@pytest.mark.parametrize("language", ["java", "javascript", "css", "c", "go"])
def test_a_comment_is_one_before_its_end_has_come(language):
    code = CodeColors(language)
    code.add("/* begun")
    styles = {style.color.name for word, style in colors(code.add(" * goes on")) if word.strip()}
    assert styles == {"#959077"}


def test_looking_ahead_is_not_remembered():
    code, fresh = CodeColors("python"), CodeColors("python")
    code.peek('x = """')
    assert colors(code.add("return 1")) == colors(fresh.add("return 1"))


@pytest.mark.parametrize("language", ["", "nosuch", "{.nosuch}", "../../x", "\x1b[2J"])
def test_an_unknown_language_is_light_on_dark(language):
    text = CodeColors(language).add("a\tb")
    assert text.plain == "a   b" and text.spans == [] and text.style == CODE_STYLE


def test_long_blocks_and_long_lines_do_not_cost_ever_more():
    code = CodeColors("json")
    begun = time.process_time()
    for number in range(300):
        code.add(f'  "key{number}": [1, 2, {{"a": null}}],')
    code.add("[" * 200_000)
    assert time.process_time() - begun < 20
    assert len(code._window) <= 202
