"""`llm-local show`: what a model on this machine is, by its files; it is not loaded."""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_local.cli.list_models import Listed, describe
from llm_local.errors import ModelCorrupt, ModelNotFound
from llm_local.store.library import find_model, total_bytes
from llm_local.terminal.sizes import format_bytes, format_count
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.tables import aligned, tab_lines, to_terminal

if TYPE_CHECKING:
    from llm_local.loaders.card import ModelCard

__all__ = ["add_flags", "run"]

NOT_SUPPORTED = "in the model, but not supported here"


@dataclass(frozen=True, slots=True)
class _Shown:
    listed: Listed
    card: ModelCard
    runs: str


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("name", metavar="NAME", help="a model, as `llm-local list` names it, or a folder")
    parser.add_argument("--template", action="store_true", help="print the chat template alone, whole")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Print what is known of the model: lines of a name and a value, or JSON.

    Raises:
        ModelNotFound: it is not here, or has no chat template and that was asked for.
        ModelCorrupt: after all that could be said, something is damaged.
    """
    model = find_model(args.name)
    if model.state == "incomplete" or not model.folder.is_dir():
        hint = (
            f"`llm-local pull {model.alias_of or model.name}` fetches it."
            if model.ref
            else "See `llm-local list`."
        )
        raise ModelNotFound(f"{args.name} cannot be shown: {model.fault or 'it is gone'}.", hint)
    # Late: it reads formats of tool calls too, which other verbs do without.
    from llm_local.loaders.card import gguf_card, read_card

    card = gguf_card([model.folder / name for name in model.gguf]) if model.gguf else read_card(model.folder)
    if args.template:
        if not card.chat_template:
            raise ModelNotFound(f"{args.name} has no chat template.", kind="file_not_found")
        answer.write(card.chat_template)
        answer.end()
        return
    shown = _Shown(describe(model), card, _runs(card))
    if args.json:
        answer.write(json.dumps(_to_object(shown), indent=2) + "\n")
    else:
        rows = _rows(shown)
        answer.write(aligned(("", ""), rows) if to_terminal() else tab_lines(rows))
    if card.faults or shown.listed.note.startswith("corrupt"):
        reason = card.faults[0] if card.faults else shown.listed.note
        raise ModelCorrupt(f"{args.name} is damaged: {reason}", "`llm-local verify` says more.")


def _runs(card: ModelCard) -> str:
    """Which way it would run here, as far as that can be said without loading it."""
    if card.format == "gguf":
        return "not yet: GGUF files cannot be run"
    if card.quantization != "none":
        return "not yet: weights that are already quantized cannot be run"
    if card.capabilities.embedding and not card.capabilities.chat:
        return "with `llm-local embed`"
    # Late: a table of the engine, without any code of it.
    from llm_local.engine.families import FAMILIES

    if card.model_type in FAMILIES:
        return "the native step knows this family and runs it on a CPU; what really runs is decided when it is loaded"
    return "through transformers, if it knows this family; what really runs is decided when it is loaded"


def _rows(shown: _Shown) -> list[tuple[str, str]]:
    card, model = shown.card, shown.listed.model
    rows = [
        ("name", model.name),
        ("alias of", model.alias_of),
        ("state", shown.listed.note if shown.listed.state != "complete" else "complete"),
        ("architecture", card.architecture),
        ("family", card.model_type),
        ("parameters", "" if card.num_parameters is None else format_count(card.num_parameters)),
        ("format", card.format),
        ("quantization", card.quantization),
        ("stored as", ", ".join(f"{name} ({format_count(count)})" for name, count in card.dtypes.items())),
        *((name.replace("_", " "), _number(value)) for name, value in dataclasses.asdict(card.shape).items()),
        ("license", card.license or "not in the model's files"),
        *_capability_rows(card),
        *((f"default {name}", str(value)) for name, value in card.generation_defaults.items()),
        ("runs", shown.runs),
        ("commit", model.commit),
        ("path", str(model.folder)),
        ("size", f"{format_bytes(total_bytes(shown.listed.files))} in {len(shown.listed.files)} files"),
        *(
            (f"file {one.name}", "missing" if one.size is None else format_bytes(one.size))
            for one in shown.listed.files
        ),
    ]
    return [(name, value) for name, value in rows if value]


def _capability_rows(card: ModelCard) -> list[tuple[str, str]]:
    can = card.capabilities
    template = f"{len(card.chat_template)} characters; --template prints it" if card.chat_template else "none"
    return [
        ("chat template", template),
        ("chat", "yes" if can.chat else "no"),
        ("tools", f"yes, written in the format {can.tool_format!r}" if can.tools else "not by its template"),
        ("thinking", can.thinking or "no"),
        ("embedding", "yes" if can.embedding else "no"),
        ("vision", NOT_SUPPORTED if can.vision else "no"),
    ]


def _to_object(shown: _Shown) -> dict[str, Any]:
    card = dataclasses.asdict(shown.card)
    vision = card["capabilities"].pop("vision")
    return {
        **shown.listed.to_object(),
        **card,
        "capabilities": {**card["capabilities"], "vision": False, "has_vision_part": vision},
        "faults": list(shown.card.faults),
        "runs": shown.runs,
        "files": [{"name": one.name, "size_bytes": one.size} for one in shown.listed.files],
    }


def _number(value: Any) -> str:
    return "" if value is None else str(value)
