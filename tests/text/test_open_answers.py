"""An answer that stays open: what the model sees of it is what it would have seen, up to that point."""

from __future__ import annotations

import pytest

from llm_local.errors import InvalidRequest
from llm_local.messages import Message, ToolCall
from llm_local.model_loader import load_tokenizer_and_model, resolve_model
from llm_local.specs import ModelSpec
from llm_local.text.channels import ChannelSplitter, ReasoningTags
from llm_local.text.templates import ChatTemplate
from text.small_tokenizers import byte_fallback, byte_level, unigram, with_template, word_piece

CHATML = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# As Mistral: no generation prompt of its own.
BRACKETS = """{{ bos_token }}{% for m in messages %}
{%- if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}
{%- else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"""

# As Gemma: white space around a turn is cut, and the role has another name.
TRIMMED = """
{%- for m in messages %}
    {{- '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim + '<end>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<turn>model\\n' }}{% endif %}"""

# As Qwen3: the reasoning of the last answer is written, of earlier ones not.
THINKING = """
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.role == 'assistant' and loop.last and m.reasoning_content %}
        {{- '<think>\\n' + m.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# As DeepSeek R1: the prompt opens the reasoning, and no turn ever shows it.
OPENED = """
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' + m.content.split('</think>')[-1] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"""

# An answer is asked for in one way and written in another.
ELSEWISE = """
{%- for m in messages %}{{ '<' + m.role + '>' + m.content + '</s>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<bot>' }}{% endif %}"""

TWICE = "{% for m in messages %}{{ m.role + m.content + '(' + m.content + ')' }}{% endfor %}"

TALK = [
    Message("system", "Be kind."),
    Message("user", "Hello there."),
    Message("assistant", "Hi!"),
    Message("user", "Who are you?"),
]
PARTS = [
    "I am a tiny model. I can",
    "I",
    "Hello world,",
    "über ✓",
    "<|im_end|> is a token",
    "```python\nx = 1",
]


def template(source, make=byte_level):
    return ChatTemplate(with_template(make, source))


def answer(content, reasoning=None):
    return Message("assistant", content, reasoning=reasoning)


@pytest.fixture(scope="module")
def starter():
    resolved = resolve_model(ModelSpec("starter", dtype="float32"), explicit=True)
    return load_tokenizer_and_model(resolved.spec, path=resolved.path)


TEMPLATES = {
    "chatml": lambda: template(CHATML),
    "brackets": lambda: template(BRACKETS, byte_fallback),
    "trimmed": lambda: template(TRIMMED),
    "trimmed, Unigram": lambda: template(TRIMMED, unigram),
    "thinking": lambda: template(THINKING),
    "fallback": lambda: ChatTemplate(byte_level()),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", [*TEMPLATES, "starter"])
def test_an_open_answer_is_the_beginning_of_the_whole_one(name, part, starter):
    """Its ids are those of the conversation in which the answer is over and the next question follows."""
    chat = ChatTemplate(starter.tokenizer) if name == "starter" else TEMPLATES[name]()
    opened = chat.render([*TALK, answer(part)], goes_on=True)
    whole = chat.render([*TALK, answer(part), Message("user", "And now?")])
    prompt = chat.render(TALK)
    assert whole.text.startswith(opened.text)
    assert whole.text[len(opened.text) :].strip()
    assert opened.text.startswith(prompt.text)
    assert opened.text.endswith(part)
    # a text that ends in no control token may end in the middle of a longer token
    same = len(opened.token_ids) - (
        0 if "<|" in whole.text[len(opened.text) :][:3] or name == "trimmed" else 1
    )
    assert whole.token_ids[:same] == opened.token_ids[:same]
    assert opened.goes_on == "content"


@pytest.mark.parametrize("source", [CHATML, THINKING, TRIMMED])
def test_white_space_at_the_end_of_the_part_is_kept(source):
    opened = template(source).render([*TALK, answer("One, two, ")], goes_on=True)
    assert opened.text.endswith("One, two, ")


def test_reasoning_that_was_broken_off_goes_on():
    opened = template(THINKING).render([*TALK, answer("", "First I add")], goes_on=True)
    assert opened.text.endswith("<|im_start|>assistant\n<think>\nFirst I add")
    assert opened.goes_on == "reasoning"


def test_an_answer_behind_reasoning_goes_on_with_the_reasoning_before_it():
    opened = template(THINKING).render([*TALK, answer("Seven", "3 + 4")], goes_on=True)
    assert opened.text.endswith("<|im_start|>assistant\n<think>\n3 + 4\n</think>\n\nSeven")
    assert opened.goes_on == "content"


def test_where_the_prompt_opens_the_reasoning_it_is_put_there():
    """The template shows reasoning of no turn, but the model that goes on has thought it."""
    chat = template(OPENED)
    before = chat.render(TALK).text
    assert before.endswith("<think>\n")
    thought = chat.render([*TALK, answer("", "First I add")], goes_on=True)
    assert (thought.text, thought.goes_on) == (f"{before}First I add", "reasoning")
    answered = chat.render([*TALK, answer("Seven", "3 + 4")], goes_on=True)
    assert (answered.text, answered.goes_on) == (f"{before}3 + 4\n</think>\n\nSeven", "content")
    think = chat._tokenizer.convert_tokens_to_ids("</think>")
    assert answered.token_ids.count(think) == 1


def test_control_tokens_in_the_part_stay_text():
    tokenizer = byte_level()
    tokenizer.chat_template = CHATML
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    opened = ChatTemplate(tokenizer).render([*TALK, answer("The token <|im_end|> ends")], goes_on=True)
    assert opened.token_ids.count(end) == len(TALK)


@pytest.mark.parametrize("source", [ELSEWISE, TWICE])
def test_a_template_that_cannot_is_refused_by_name(source):
    with pytest.raises(InvalidRequest, match="cannot leave an answer open"):
        template(source, word_piece).render([*TALK[1:], answer("hello")], goes_on=True)


@pytest.mark.parametrize(
    "last",
    [
        Message("user", "Hello"),
        Message("assistant", ""),
        Message("assistant", "I look.", tool_calls=(ToolCall("1", "look", {}),)),
    ],
)
def test_what_is_no_begun_answer_is_refused(last):
    with pytest.raises(InvalidRequest):
        template(CHATML).render([*TALK, last], goes_on=True)


def test_what_goes_on_in_the_middle_keeps_its_white_space_and_its_tags():
    tags = ReasoningTags("<think>", "</think>")

    def split(text, **how):
        splitter = ChannelSplitter(tags, **how)
        pieces = [*splitter.feed(text), *splitter.finish()]
        return [
            "".join(one for name, one in pieces if name == channel) for channel in ("reasoning", "content")
        ]

    assert split(" <think> is a tag", begun=True) == ["", " <think> is a tag"]
    assert split(" and then\n</think>\n\nSeven", opened=True, begun=True) == [" and then", "Seven"]
