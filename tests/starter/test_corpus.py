"""The corpus, the split and the mask of the starter model: what would silently spoil its training or its figures."""

import json
import random
import re
from collections.abc import Iterator

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("transformers")
from starter import words
from starter.batches import ROW_TOKENS, BatchPlan, echo_row, pool, to_batch
from starter.corpus import FAMILIES, LONG_FAMILIES, draw, drawn_for_evaluation
from starter.dialogue import Dialogue
from starter.families import numbers, texts, unknown, usage
from starter.rendering import Renderer
from starter.slots import Slots, is_held_out
from starter.tokenizer import CONTEXT, END, train_tokenizer

VALUE_LISTS = (
    words.NAMES, words.COLORS, words.CITIES, words.ANIMALS, words.NOUNS, words.ADJECTIVES, words.VERBS, words.TEXT_KEYS,
    words.NUMBER_KEYS,
)  # fmt: skip


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(train_tokenizer(7, rows=2000))


@pytest.fixture(scope="module")
def drawn() -> list[tuple[str, Dialogue]]:
    rng = random.Random(5)
    return [draw(rng, late=number % 3 > 0, varied=number % 3 > 1) for number in range(3000)]


def texts_of(dialogue: Dialogue) -> str:
    turns = [f"{one['content']} {json.dumps(one.get('tool_calls', ''))}" for one in dialogue.messages]
    return " ".join(turns) + json.dumps(dialogue.tools)


def replies(dialogues: Iterator[Dialogue]) -> Iterator[str]:
    for dialogue in dialogues:
        yield from (one["content"] for one in dialogue.messages if one["role"] == "assistant")


def test_every_list_has_values_on_both_sides_of_the_split() -> None:
    for values in VALUE_LISTS:
        sides = {is_held_out(value) for value in values}
        assert sides == {True, False}, values[:3]


def test_held_out_values_never_appear_in_training(drawn: list[tuple[str, Dialogue]]) -> None:
    held_out = {value for values in VALUE_LISTS for value in values if is_held_out(value)}
    for family, dialogue in drawn:
        seen = set(re.findall(r"[^\W\d_]+", texts_of(dialogue)))
        assert not seen & held_out, f"{family}: {seen & held_out}"


def test_held_out_sums_and_numbers_never_appear_in_training(drawn: list[tuple[str, Dialogue]]) -> None:
    for family, dialogue in drawn:
        for reply in replies(iter([dialogue])):
            for a, b in re.findall(r"^(\d+) \+ (\d+) = ", reply):
                assert not numbers.pair_held_out(int(a), int(b)), family
            for number in re.findall(r"remember the number (\d+)\.", reply):
                assert not is_held_out(number), family


def test_held_out_phrasings_never_appear_in_training(drawn: list[tuple[str, Dialogue]]) -> None:
    held_out = [text for text in texts.held_out_phrasings() if "{}" not in text]
    assert held_out
    asked = {one["content"] for _, dialogue in drawn for one in dialogue.messages if one["role"] == "user"}
    assert not asked & set(held_out)


def test_evaluation_uses_held_out_values() -> None:
    for seed in range(50):
        dialogue = drawn_for_evaluation("named_greeting", random.Random(seed), new_phrasings=True)
        name = re.match(r"Hello (\w+)!", dialogue.messages[-1]["content"])
        assert name and is_held_out(name[1])


def test_the_same_seed_draws_the_same_corpus() -> None:
    first, second, other = (random.Random(seed) for seed in (11, 11, 12))
    one, two, three = ([texts_of(draw(rng)[1]) for _ in range(200)] for rng in (first, second, other))
    assert one == two
    assert one != three


def test_the_same_seed_trains_the_same_tokenizer() -> None:
    one, two = (train_tokenizer(3, rows=300).backend_tokenizer.to_str() for _ in range(2))
    assert one == two


def test_the_same_pool_makes_the_same_batches(renderer: Renderer) -> None:
    plan = BatchPlan(seed=1, batch_tokens=512, pool_batches=3)
    one, two, later = (pool(renderer, plan, number, 2048) for number in (4, 4, 5))
    assert all(a.ids.equal(b.ids) and a.targets.equal(b.targets) for a, b in zip(one, two, strict=True))
    assert not one[0].ids.equal(later[0].ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_token_is_learned_in_every_assistant_turn(renderer: Renderer, family: str) -> None:
    for seed in range(8):
        dialogue = drawn_for_evaluation(family, random.Random(seed), new_phrasings=False)
        row = renderer.row(dialogue)
        ends = sum(learned and one == renderer.end for one, learned in zip(row.ids, row.learned, strict=True))
        assert ends == sum(one["role"] == "assistant" for one in dialogue.messages)
        assert row.learned[row.last_turn()] and not row.learned[row.last_turn() - 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_conversation_is_the_prompt_and_the_reply(renderer: Renderer, family: str) -> None:
    for seed in range(8):
        dialogue = drawn_for_evaluation(family, random.Random(seed), new_phrasings=True)
        prompt, row = renderer.ids(renderer.text(dialogue, prompt_only=True)), renderer.row(dialogue)
        assert row.ids[: len(prompt)] == prompt
        assert row.last_turn() == len(prompt)


def test_targets_are_the_learned_ids_moved_by_one(renderer: Renderer) -> None:
    row = renderer.row(drawn_for_evaluation("addition", random.Random(1), new_phrasings=False))
    batch = to_batch([row, echo_row(random.Random(2), 2048)])
    wanted = [one for one, learned in zip(row.ids, row.learned, strict=True) if learned]
    assert batch.targets[0][batch.targets[0] >= 0].tolist() == wanted
    assert wanted[-1] == renderer.end


def test_rows_fit(renderer: Renderer, drawn: list[tuple[str, Dialogue]]) -> None:
    over = [
        family
        for family, one in drawn[:1500]
        if family not in LONG_FAMILIES and len(renderer.row(one).ids) > ROW_TOKENS
    ]
    assert len(over) < 8, over  # these few are drawn again
    sizes = [batch.ids.size(1) for batch in pool(renderer, BatchPlan(seed=2, pool_batches=60), 0, 2048)]
    assert max(sizes) <= CONTEXT


def test_replies_have_no_stray_white_space_and_no_turn_starts_a_line(
    drawn: list[tuple[str, Dialogue]],
) -> None:
    for family, dialogue in drawn:
        assert all(reply == reply.strip() for reply in replies(iter([dialogue]))), family
        # A line break at the start would merge into the header of the turn and change its tokens.
        assert not any(message["content"].startswith("\n") for message in dialogue.messages), family


def test_json_replies_parse() -> None:
    for family in ("json", "json_extracted", "json_system"):
        for seed in range(100):
            dialogue = drawn_for_evaluation(family, random.Random(seed), new_phrasings=False)
            assert isinstance(json.loads(dialogue.messages[-1]["content"]), dict)


def test_rendered_tool_calls_parse_and_match_their_tools(renderer: Renderer) -> None:
    for seed in range(100):
        dialogue = drawn_for_evaluation("tool_calls_two", random.Random(seed), new_phrasings=False)
        tools = {one["function"]["name"]: one["function"]["parameters"] for one in dialogue.tools}
        whole, prompt = renderer.text(dialogue), renderer.text(dialogue, prompt_only=True)
        calls = re.findall(r"<tool_call>\n(.*?)\n</tool_call>", whole[len(prompt) :], re.DOTALL)
        assert len(calls) == len(dialogue.messages[-1]["tool_calls"])
        for call in map(json.loads, calls):
            assert set(call["arguments"]) <= set(tools[call["name"]]["properties"])


@pytest.mark.parametrize(
    "text", ["", "a  b\n\n\tc", "0123 4.5", "żółć 你好 👩‍👩‍👧 \u200b", "".join(map(chr, range(1, 600)))]
)
def test_any_text_survives_the_tokenizer(renderer: Renderer, text: str) -> None:
    assert renderer._tokenizer.decode(renderer.ids(text)) == text


def test_a_word_has_the_same_tokens_wherever_it_stands(renderer: Renderer) -> None:
    alone = renderer.ids("zamdraist")
    for text in (' "zamdraist"', "say zamdraist", "say:\nzamdraist", "(zamdraist)", '{"a": "zamdraist"}'):
        ids = renderer.ids(text)
        assert any(ids[start : start + len(alone)] == alone for start in range(len(ids))), text


def test_only_the_frame_of_turns_is_special(renderer: Renderer) -> None:
    ids = renderer.ids(f"<tool_call>x</tool_call>{END}")
    assert renderer._tokenizer.decode(ids, skip_special_tokens=True) == "<tool_call>x</tool_call>"


def test_facts_name_only_flags_and_settings_that_exist() -> None:
    flags = set(
        "--model --system-prompt -s --max-tokens --temperature --top-p --top-k --min-p --repetition-penalty --seed "
        "--stop --dtype --device --raw --no-stream --json --show-prompt --verbose --version --help".split()
    )
    settings = set(
        "MODEL_ID USE_GPU TORCH_DTYPE DEVICE_MAP MAX_NEW_TOKENS TEMPERATURE TOP_P TOP_K DO_SAMPLE "
        "API_HOST API_PORT LOG_LEVEL".split()
    )
    for fact in usage.FACTS:
        told = " ".join((fact.answer, *fact.asks))
        assert set(re.findall(r"(?<!\S)`?(--?[a-z][a-z-]*)", fact.answer)) - {"-m"} <= flags, fact.answer
        assert set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", told)) <= settings, fact.answer


def test_no_two_facts_answer_the_same_question() -> None:
    asked = [text.lower() for fact in usage.FACTS for text in (*fact.wants, *fact.asks)]
    assert sorted(asked) == sorted(set(asked))


def test_unknown_questions_are_not_known_ones() -> None:
    known = {text.lower() for fact in usage.FACTS for text in fact.asks}
    rng = random.Random(3)
    for _ in range(2000):
        exchange = unknown.unknown(Slots(rng))
        assert exchange.user.lower() not in known
