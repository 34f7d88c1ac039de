"""Decisions: the probabilities are those of the plain model, and every way to ask for nonsense is refused."""

from __future__ import annotations

import dataclasses
import math
import threading
from types import SimpleNamespace

import pytest
import torch

from fakes import ByteTokenizer
from llm_local.engine.factory import make_engine
from llm_local.errors import ContextLengthExceeded, InvalidRequest, NumericalError
from llm_local.events import Progress, fold
from llm_local.generation.choices import MAX_CHOICES, DecisionOptions, check_choices, share
from llm_local.generator import TextGenerator
from llm_local.messages import Message
from llm_local.model_loader import load_tokenizer_and_model, resolve_model
from llm_local.options import GenerationOptions
from llm_local.runtime.worker import EngineWorker, ThreadDriver
from llm_local.specs import EngineOptions, ModelSpec
from text.small_tokenizers import byte_level
from tiny_checkpoints import tiny_tokenizer
from tiny_models import CONTEXT_LENGTH, END_TOKEN, VOCAB_SIZE, tiny_model, tiny_variant

QUESTION = [
    Message("system", "Be brief."),
    Message("user", "Is it one, or two? Choose one of yes, no, maybe."),
]
CHOICES = ("yes", "no", "maybe", "I choose yes.", "I choose no.", "never ever")
WHOLE = DecisionOptions(whole=True)


@pytest.fixture(scope="module")
def starter():
    resolved = resolve_model(ModelSpec("starter"), explicit=True)
    return load_tokenizer_and_model(resolved.spec, path=resolved.path)


def tiny_loaded(model_type="llama", tokenizer=None, model=None):
    info = SimpleNamespace(context_length=CONTEXT_LENGTH, vocab_size=VOCAB_SIZE, device="cpu")
    return SimpleNamespace(
        tokenizer=tokenizer or tiny_tokenizer(),
        model=model or tiny_model(model_type),
        info=info,
        end_token_ids=frozenset({END_TOKEN}),
    )


def tiny_generator(model_type="llama", **parts):
    loaded = tiny_loaded(model_type, **parts)
    return TextGenerator(loaded, engine=make_engine(loaded.model, context_length=CONTEXT_LENGTH))


def plain_logprobs(model, prompt_ids, choice_ids, end_ids=()):
    """Joint log-probabilities by transformers alone, one forward pass for each choice."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    joint = []
    try:
        for ids in choice_ids:
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt_ids, *ids]]), use_cache=False).logits[0].float()
            rows = logits[len(prompt_ids) - 1 :].log_softmax(-1).double()
            total = sum(rows[index, token].item() for index, token in enumerate(ids))
            joint.append(total + (rows[-1][sorted(end_ids)].logsumexp(-1).item() if end_ids else 0.0))
    finally:
        model.set_attn_implementation(implementation)
    return joint


def check_against_the_model(decision, model, prompt_ids, end_ids=()):
    """Probabilities to 1e-4; log-probabilities too, or to 2e-5 of them where they are large."""
    joint = plain_logprobs(model, prompt_ids, [one.token_ids for one in decision.choices], end_ids)
    assert [one.logprob for one in decision.choices] == pytest.approx(joint, abs=1e-4, rel=2e-5)
    shares = torch.tensor(joint, dtype=torch.float64).softmax(-1).tolist()
    assert [one.probability for one in decision.choices] == pytest.approx(shares, abs=1e-4)
    assert decision.coverage == pytest.approx(sum(map(math.exp, joint)), abs=1e-4)


@pytest.mark.parametrize("kernels", ["auto", "linears", "off"])
@pytest.mark.parametrize("whole", [False, True])
def test_probabilities_are_those_of_plain_transformers_on_the_starter_model(starter, kernels, whole):
    generator = TextGenerator(starter, engine_options=EngineOptions(kernels=kernels))
    options = DecisionOptions(whole=whole)
    for question in (QUESTION, [Message("user", "What is the capital of France?")]):
        choices = (*CHOICES, "The capital of France is Paris.", "The capital of France is London.", "Paris")
        decision = generator.decide_chat(question, choices, options)
        assert decision.num_passes == 2
        assert decision.notices == ()
        prompt_ids = generator.prepare_chat(question).prompt_ids
        assert decision.usage.prompt_tokens == len(prompt_ids)
        check_against_the_model(decision, starter.model, prompt_ids, starter.end_token_ids if whole else ())
    assert decision.best.text == "The capital of France is Paris."
    assert 0.9 < decision.coverage <= 1


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gpt2", "mixtral", "mamba", "bloom"])
@pytest.mark.parametrize("whole", [False, True])
def test_and_on_packed_and_universal_architectures(model_type, whole):
    generator = tiny_generator(model_type)
    decision = generator.decide_chat(QUESTION, CHOICES, DecisionOptions(whole=whole))
    end_ids = (END_TOKEN,) if whole else ()
    prompt_ids = generator.prepare_chat(QUESTION).prompt_ids
    check_against_the_model(decision, tiny_model(model_type), prompt_ids, end_ids)
    # universal: the prompt, then each choice alone; but what has to be read of "no" is how "never ever" begins
    alone = 1 + len(CHOICES) - (not whole)
    assert decision.num_passes == (alone if model_type in ("mamba", "bloom") else 2)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantized_models_answer_for_themselves(quantization):
    resolved = resolve_model(ModelSpec("starter", quantization=quantization), explicit=True)
    loaded = load_tokenizer_and_model(resolved.spec, path=resolved.path)
    assert loaded.info.quantization == quantization
    generator = TextGenerator(loaded)
    prompt = "What can you do? I am the"
    decision = generator.decide_text(prompt, (" starter", " best", " one and only"))
    for one in decision.choices:
        alone = generator.score(one.text, given=prompt)
        assert [token.token_id for token in alone] == list(one.token_ids)
        assert one.token_logprobs == pytest.approx([token.logprob for token in alone], abs=1e-4, rel=1e-4)


def test_the_joint_logprob_is_that_of_score():
    generator = tiny_generator()
    decision = generator.decide_text("It is ", CHOICES)
    for one in decision.choices:
        alone = generator.score(one.text, given="It is ")
        assert one.logprob == pytest.approx(sum(token.logprob for token in alone), abs=1e-4)
        assert one.end_logprob is None


@pytest.mark.parametrize("options", [DecisionOptions(), WHOLE, DecisionOptions(normalize="tokens")])
def test_probabilities_sum_to_one_and_order_does_not_matter(options):
    generator = tiny_generator()
    forth = generator.decide_chat(QUESTION, CHOICES, options)
    back = generator.decide_chat(QUESTION, CHOICES[::-1], options)
    assert sum(one.probability for one in forth.choices) == pytest.approx(1, abs=1e-12)
    assert [one.text for one in forth.choices] == list(CHOICES)
    assert [one.text for one in forth.ranked] == [one.text for one in back.ranked]
    for one, other in zip(forth.choices, back.choices[::-1], strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
    assert forth.best == forth.ranked[0]
    assert [one.probability for one in forth.ranked] == sorted(
        (one.probability for one in forth.choices), reverse=True
    )


def test_all_next_tokens_and_the_end_cover_everything():
    """The coverage of everything a reply may begin with is 1: nothing is counted twice, nothing is lost."""
    engine = make_engine(tiny_model("llama"), context_length=CONTEXT_LENGTH)
    decider = tiny_generator().decisions
    prepared = decider.prepare_text("a", ("b", "c"), DecisionOptions())
    every = tuple((token,) for token in range(VOCAB_SIZE))
    prepared = dataclasses.replace(prepared, choice_ids=every, choices=tuple(map(str, range(VOCAB_SIZE))))
    engine.submit(prepared.request("x"))
    while engine.has_work():
        step = engine.step()[-1]
    decision = prepared.decision(step)
    assert decision.coverage == pytest.approx(1, abs=1e-5)
    assert decision.num_passes == 1


def test_length_normalization_is_the_mean():
    generator = tiny_generator()
    for options, lengths in (
        (DecisionOptions(normalize="tokens"), [3, 2, 5]),  # the tiny tokenizer has a token for each byte
        (DecisionOptions(whole=True, normalize="tokens"), [4, 3, 6]),
        (DecisionOptions(whole=True, normalize="characters"), [3, 2, 5]),
    ):
        decision = generator.decide_chat(QUESTION, ("yes", "no", "maybe"), options)
        means = [one.logprob / length for one, length in zip(decision.choices, lengths, strict=True)]
        expected = torch.tensor(means, dtype=torch.float64).softmax(-1).tolist()
        assert [one.probability for one in decision.choices] == pytest.approx(expected, abs=1e-9)
        joint = sum(math.exp(one.logprob) for one in decision.choices)
        assert decision.coverage == pytest.approx(joint), "coverage is never normalized"


def test_choices_that_begin_alike_are_whole_replies_and_it_is_said():
    generator = tiny_generator()
    decision = generator.decide_chat(QUESTION, ("yes", "yes please", "no"))
    assert decision.whole
    assert decision.notices == (
        "The choice 'yes' is the beginning of 'yes please': the choices are scored as whole replies, with their end.",
    )
    prompt_ids = generator.prepare_chat(QUESTION).prompt_ids
    check_against_the_model(decision, tiny_model("llama"), prompt_ids, (END_TOKEN,))
    with pytest.raises(InvalidRequest, match="a reply that begins with one may be the other"):
        generator.decide_chat(QUESTION, ("yes", "yes please"), DecisionOptions(whole=False))
    explicit = generator.decide_chat(QUESTION, ("yes", "yes please", "no"), WHOLE)
    assert explicit.notices == ()


def test_whole_replies_count_every_end_token():
    loaded = tiny_loaded()
    loaded.end_token_ids = frozenset({END_TOKEN, 50, 60})
    generator = TextGenerator(loaded, engine=make_engine(loaded.model, context_length=CONTEXT_LENGTH))
    decision = generator.decide_text("It is ", ("no", "yes"), WHOLE)
    prompt_ids = generator.prepare_text("It is ").prompt_ids
    check_against_the_model(decision, loaded.model, prompt_ids, loaded.end_token_ids)


def test_decisions_beside_running_streams_change_nothing():
    options = GenerationOptions(temperature=1, seed=5, max_new_tokens=40)
    alone = [tiny_generator().generate_text(f"text {n}", options).token_ids for n in range(3)]
    decided = tiny_generator().decide_chat(QUESTION, CHOICES, WHOLE)

    generator = tiny_generator()
    streams = [generator.stream(generator.prepare_text(f"text {n}", options)) for n in range(3)]
    begun = [[next(stream) for _ in range(3)] for stream in streams]
    beside = [generator.decide_chat(QUESTION, CHOICES, WHOLE) for _ in range(2)]
    done = [fold([*events, *stream]) for events, stream in zip(begun, streams, strict=True)]
    assert [one.token_ids for one in done] == alone
    for decision in beside:
        assert [one.logprob for one in decision.choices] == pytest.approx(
            [one.logprob for one in decided.choices], abs=1e-4
        )


def test_threads_decide_side_by_side():
    loaded = tiny_loaded()
    worker = EngineWorker(make_engine(loaded.model, context_length=CONTEXT_LENGTH))
    try:
        generator = TextGenerator(loaded, engine=worker._engine, driver=lambda engine: ThreadDriver(worker))
        wanted = tiny_generator().decide_chat(QUESTION, CHOICES, WHOLE)
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(generator.decide_chat(QUESTION, CHOICES, WHOLE)))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        worker.close(30)
    assert len(found) == 6
    for decision in found:
        assert decision.num_passes == 2
        assert [one.probability for one in decision.choices] == pytest.approx(
            [one.probability for one in wanted.choices], abs=1e-4
        )


def test_the_second_decision_finds_the_prompt_in_the_cache(starter):
    generator = TextGenerator(starter)
    cold = generator.decide_chat(QUESTION, CHOICES)
    warm = generator.decide_chat(QUESTION, ("up", "down"))
    assert (cold.usage.cached_tokens, warm.usage.cached_tokens) == (0, cold.usage.prompt_tokens - 1)
    assert warm.usage.completion_tokens == 0


def test_progress_comes_while_the_prompt_is_read():
    seen = []
    tiny_generator().decide_text("x" * 900, ("yes", "no"), on_progress=seen.append)
    assert seen == [Progress("prefill", 512, 900), Progress("prefill", 900, 900)]


# --- models that reason ---

SWITCHED = (
    "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{# </think> #}"
)
SILENT = (
    "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>{# </think> #}"
)
FORCED = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|><think>{# </think> #}"
HARMONY = (
    "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|start|>assistant"
    "{# <|channel|>analysis<|message|> <|end|> #}"
)


def reasoning_generator(template):
    tokenizer = byte_level()
    tokenizer.chat_template = template
    model = tiny_variant("llama", vocab_size=512)
    loaded = tiny_loaded(tokenizer=tokenizer, model=model)
    loaded.info.vocab_size = 512
    return TextGenerator(loaded, engine=make_engine(model, context_length=CONTEXT_LENGTH)), model


def test_reasoning_is_switched_off_where_there_is_a_switch():
    generator, model = reasoning_generator(SWITCHED)
    decision = generator.decide_chat([Message("user", "hi")], ("yes", "no"))
    off = GenerationOptions(think="off")
    prepared = generator.prepare_chat([Message("user", "hi")], off)
    assert prepared.prompt_text.endswith("<think></think>")
    check_against_the_model(decision, model, prepared.prompt_ids)
    assert (decision.reasoning, decision.notices) == (None, ())


def test_without_a_switch_it_is_told_how_likely_reasoning_is():
    generator, model = reasoning_generator(SILENT)
    decision = generator.decide_chat([Message("user", "hi")], ("yes", "no"))
    prompt_ids = generator.prepare_chat([Message("user", "hi")]).prompt_ids
    check_against_the_model(decision, model, prompt_ids)
    (think,) = generator._template.spell("<think>")
    (wanted,) = plain_logprobs(model, prompt_ids, [(think,)])
    assert decision.reasoning == pytest.approx(math.exp(wanted), abs=1e-4)
    assert decision.notices == (), "it is not likely"
    prepared = generator.decisions.prepare_chat([Message("user", "hi")], ("yes", "no"), DecisionOptions())
    step = SimpleNamespace(
        error=None,
        report=SimpleNamespace(usage=None, timings=None),
        scores=SimpleNamespace(
            logprobs=((-3.0,) * len(prepared.choice_ids[0]), (-4.0,), (math.log(0.92),)),
            end_logprobs=(),
            num_tokens=0,
            num_passes=1,
        ),
    )
    (notice,) = prepared.decision(step).notices
    assert notice.startswith("With a probability of 92% this model would reason before it answers")


def test_a_model_that_cannot_but_reason_is_refused():
    generator, _ = reasoning_generator(FORCED)
    with pytest.raises(InvalidRequest, match="cannot but reason"):
        generator.decide_chat([Message("user", "hi")], ("yes", "no"))


def test_where_answers_have_a_channel_the_choices_are_in_it():
    generator, model = reasoning_generator(HARMONY)
    decision = generator.decide_chat([Message("user", "hi")], ("yes", "no"))
    prompt_ids = generator.prepare_chat([Message("user", "hi")]).prompt_ids
    prompt_ids += generator._template.spell("<|channel|>final<|message|>")
    check_against_the_model(decision, model, prompt_ids)
    assert "always reasons" in decision.notices[0]


# --- refusals ---


def test_a_model_without_template_gets_a_transcript_and_a_space():
    generator = tiny_generator(tokenizer=ByteTokenizer(), model=tiny_variant("llama", vocab_size=257))
    question = [Message("user", "hi")]
    decision = generator.decide_chat(question, ("yes", "no"))
    assert decision.choices[0].token_ids == tuple(b" yes")
    assert "no chat template" in decision.notices[0]
    with pytest.raises(InvalidRequest, match="No token ends a reply"):
        generator.decide_chat(question, ("yes", "no"), WHOLE)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ((), "There is no choice"),
        (("yes",), "There is only one choice"),
        (("yes", "no", "yes"), "The choice 'yes' is there twice"),
        (("yes", ""), "A choice is empty"),
        (("yes", 1), "A choice must be text, not int"),
        (("yes", "n\ud800"), "lone surrogate"),
        ("yes", "The choices are one text"),
        (tuple(map(str, range(MAX_CHOICES + 1))), f"at most {MAX_CHOICES}"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_is_no_choice_is_refused(choices, message):
    with pytest.raises(InvalidRequest, match=message) as caught:
        check_choices(choices)
    assert caught.value.param == "choices"


def test_control_tokens_are_no_choice():
    with pytest.raises(InvalidRequest, match="control token"):
        tiny_generator().decide_chat(QUESTION, ("yes</s>", "no"))


def test_choices_that_are_the_same_to_the_tokenizer_are_refused():
    class Folding(ByteTokenizer):
        def __call__(self, text, add_special_tokens=True):
            return super().__call__(text.lower(), add_special_tokens)

    generator = tiny_generator(tokenizer=Folding(), model=tiny_variant("llama", vocab_size=257))
    with pytest.raises(InvalidRequest, match="'Yes' and 'yes' are the same"):
        generator.decide_text("so", ("Yes", "yes"))


def test_what_does_not_fit_is_refused_with_the_numbers():
    generator = tiny_generator()
    with pytest.raises(ContextLengthExceeded) as caught:
        generator.decide_text("x" * (CONTEXT_LENGTH - 3), ("yes!", "no"))
    assert (caught.value.prompt_tokens, caught.value.reserve) == (CONTEXT_LENGTH - 3, 4)
    decision = generator.decide_text("x" * (CONTEXT_LENGTH - 3), ("yes", "no"))
    assert decision.usage.prompt_tokens == CONTEXT_LENGTH - 3
    with pytest.raises(ContextLengthExceeded):
        generator.decide_text("x" * (CONTEXT_LENGTH - 3), ("yes", "no"), WHOLE)


def test_empty_prompts_and_unknown_normalizations_are_refused():
    with pytest.raises(InvalidRequest, match="The prompt is empty"):
        tiny_generator().decide_text("", ("yes", "no"))
    with pytest.raises(InvalidRequest, match="normalize is 'words'"):
        DecisionOptions(normalize="words")


def test_no_probability_at_all_is_an_error_not_a_guess():
    with pytest.raises(NumericalError):
        share([-math.inf, -math.inf])
    assert share([-math.inf, -800.0]) == [0, 1]
    assert share([-800.0, -800.0]) == [0.5, 0.5]
