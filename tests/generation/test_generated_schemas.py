"""Any schema, by a model that has learned nothing: its reply is valid JSON; streamed among others as whole alone."""

from __future__ import annotations

import json
from types import SimpleNamespace

import jsonschema
import pytest

from constraints.schema_generator import make_schema
from llm_local.engine.factory import make_engine
from llm_local.events import Delta, fold
from llm_local.generator import TextGenerator
from llm_local.messages import Message
from llm_local.options import Constraint, GenerationOptions
from text.small_tokenizers import byte_level
from tiny_models import tiny_variant

NUM_SCHEMAS, WIDTH, PARTS = 200, 8, 5
CONTEXT = 4096
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
)
ASK = [Message("user", "Hello!")]


@pytest.fixture(scope="module")
def generator():
    tokenizer = byte_level()
    tokenizer.chat_template = TEMPLATE
    size = len(tokenizer) + 3
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    model = tiny_variant("llama", vocab_size=size, max_position_embeddings=CONTEXT, **shape)
    loaded = SimpleNamespace(
        tokenizer=tokenizer,
        model=model,
        info=SimpleNamespace(context_length=CONTEXT, vocab_size=size, device="cpu"),
        end_token_ids=frozenset({tokenizer.eos_token_id}),
    )
    return TextGenerator(loaded, engine=make_engine(model, context_length=CONTEXT))


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("think", ["on", "off"])
def test_any_schema_is_kept(generator, think, part):
    per_part = NUM_SCHEMAS // PARTS
    schemas = {seed: make_schema(seed) for seed in range(part * per_part, (part + 1) * per_part)}
    for start in range(0, per_part, WIDTH):
        jobs = {
            seed: GenerationOptions(
                constraint=Constraint("json_schema", schema),
                seed=seed,
                max_new_tokens=2000,
                think=think,
                max_thinking_tokens=seed % 5,
            )
            for seed, schema in list(schemas.items())[start : start + WIDTH]
        }
        streams = [generator.stream(generator.prepare_chat(ASK, options)) for options in jobs.values()]
        for (seed, options), stream in zip(jobs.items(), streams, strict=True):
            events = list(stream)
            streamed, alone = fold(events), generator.generate_chat(ASK, options)
            assert streamed.finish_reason == "stop", (seed, streamed.text)
            value = json.loads(streamed.text)
            jsonschema.Draft202012Validator(schemas[seed]).validate(value)
            assert "".join(one.text for one in said(events, "content")) == alone.text
            assert "".join(one.text for one in said(events, "reasoning")) == alone.reasoning
            assert streamed.token_ids == alone.token_ids
            assert bool(alone.reasoning) <= (think == "on" and seed % 5 > 0)


def said(events, channel):
    return [event for event in events if isinstance(event, Delta) and event.channel == channel]
