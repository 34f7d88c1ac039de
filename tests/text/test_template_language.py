"""Chat templates render exactly as transformers renders them, and reach nothing but their data."""

from __future__ import annotations

from datetime import datetime

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from llm_local.text.template_language import render_template, undeclared_variables

TALK = [
    {"role": "system", "content": "Be <b>brief</b> & kind."},
    {"role": "user", "content": "Grüße, 世界"},
    {"role": "assistant", "content": "ok", "thinking": "why not"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]

SAME = [
    "{% for m in messages %}\n  {% if loop.last %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}",
    "{% for m in messages %}{% if m.role == 'user' %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
    "{% for m in messages %}{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %}{{ x }}{% endfor %}",
    "{% for m in messages -%} {%- generation -%} {{ m.content }} {%- endgeneration -%} | {% endfor %}",
    "{{ messages | tojson }}",
    "{{ messages | tojson(indent=2, ensure_ascii=true) }}{{ tools | tojson(sort_keys=true) }}",
    "{{ messages | tojson(separators=(',', ':')) }}",
    "{% set ns = namespace(n=0, self=1) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{% set d = dict(a=1, **{'b': 2}) %}{{ d | tojson }}{{ dict.fromkeys('ab', 3) | tojson }}",
    "{% for m in messages %}{{ m.reasoning_content | default('-') }}{{ m.reasoning | default('+') }}{% endfor %}",
    "{{ 'name' in messages[1] }}{{ messages[1].name is defined }}{{ documents is none }}{{ tools is none }}",
    "{{ add_generation_prompt }}{{ bos_token }}{{ extra | default('no') }}",
    "{{ messages[0].content.split(' ')[0] }}{{ messages[0]['content'][::-1] }}{{ messages[-1].content | trim }}",
    "{{ ''.__class__ }}{{ strftime_now.__globals__ }}{{ messages.__class__ }}|",
    "{%- macro say(m) %}[{{ m.content }}]{% endmacro -%}{% for m in messages %}{{ say(m) }}{% endfor %}",
]


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("source", SAME)
def test_the_text_is_what_transformers_renders(source, tools):
    expected, _ = render_jinja_template(
        [TALK], tools, None, source, add_generation_prompt=True, bos_token="<s>"
    )
    assert render_template(source, TALK, tools, bos_token="<s>") == expected[0]


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append({}) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{% set ns = namespace(_x=1) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ dict.__init__.__globals__ }}",
        "{% for m in messages %}",
    ],
)
def test_what_transformers_refuses_is_refused(source):
    with pytest.raises(jinja2.TemplateError):
        render_jinja_template([TALK], None, None, source, add_generation_prompt=True)
    with pytest.raises(jinja2.TemplateError):
        render_template(source, TALK)


def test_the_day_is_todays():
    before = datetime.now().strftime("%Y %d")
    rendered = render_template("{{ strftime_now('%Y %d') }}", TALK)
    assert rendered in (before, datetime.now().strftime("%Y %d"))


def test_rendering_leaves_the_messages_as_they_were():
    turn = {"role": "user", "content": "a", "reasoning": "b", "name": None}
    assert render_template("{{ messages[0].thinking }}{{ 'name' in messages[0] }}", [turn]) == "bFalse"
    assert turn == {"role": "user", "content": "a", "reasoning": "b", "name": None}


def test_variables_are_those_that_the_template_reads_and_does_not_set():
    source = "{% generation %}{% set a = b %}{{ a }}{{ enable_thinking }}{% break %}{% endgeneration %}"
    assert undeclared_variables(source.replace("{% break %}", "")) == {"b", "enable_thinking"}
