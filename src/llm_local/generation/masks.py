"""What may come next in a reply: reasoning first, then a forced call or what a constraint allows."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from llm_local.engine.protocol import TokenMask
from llm_local.errors import InvalidRequest
from llm_local.messages import ToolDefinition
from llm_local.model_loader import LoadedModel
from llm_local.options import Constraint, GenerationOptions
from llm_local.text.channels import ReasoningTags
from llm_local.text.reply_format import ReplyFormat
from llm_local.text.templates import ChatTemplate
from llm_local.text.tool_formats.forcing import forced_calls

if TYPE_CHECKING:
    from llm_local.constraints.compiler import ConstraintCompiler
    from llm_local.constraints.reasoning_gate import Reasoning

__all__ = ["RequestMasks"]


class RequestMasks:
    """Makes the masks of one model's requests."""

    def __init__(self, loaded: LoadedModel, template: ChatTemplate, reply: ReplyFormat) -> None:
        self._loaded = loaded
        self._template = template
        self._reply = reply
        self._made_compiler: ConstraintCompiler | None = None
        self._making_compiler = threading.Lock()

    def mask(
        self, prompt: str, options: GenerationOptions, tools: Sequence[ToolDefinition], *, raw: bool
    ) -> TokenMask | None:
        """The mask of one request, or None when everything is allowed. A `raw` text has no reasoning.

        Raises:
            InvalidRequest: a constraint or a tool choice that cannot be kept, or not both.
        """
        tags = None if raw else self._template.tags
        inner, lead = self._inner(options, tools, "" if tags is None else tags.answers)
        reasoning = None
        # a model that may do without reasoning, and was told to, begins its answer at once
        without = options.think == "off" and inner is not None and not (tags and tags.answers)
        without = without and not self._template.opens_reasoning(prompt)
        limited = inner is not None or options.max_thinking_tokens is not None
        if tags is not None and limited and not without:
            reasoning = self._reasoning(tags, prompt, options.max_thinking_tokens, exact=inner is not None)
        if reasoning is None and not lead:
            return inner
        # Late: it loads numpy, as the constraints do.
        from llm_local.constraints.reasoning_gate import ReasoningGate

        return ReasoningGate(
            inner,
            self._loaded.info.vocab_size,
            self._loaded.end_token_ids,
            reasoning=reasoning,
            lead_ids=self._template.spell(lead) if lead and inner is not None else (),
        )

    def _inner(
        self, options: GenerationOptions, tools: Sequence[ToolDefinition], answers: str
    ) -> tuple[TokenMask | None, str]:
        """The mask of the answer, and what comes before it; `answers` where it is no call."""
        constraint, choice = options.constraint, options.tool_choice
        if tools and choice != "auto":
            return self._forced(constraint, tools, choice)
        if constraint is None:
            return None, ""
        if tools:
            return self._either(constraint, tools, answers), ""
        return self._compiler.mask(constraint), answers

    def _forced(
        self, constraint: Constraint | None, tools: Sequence[ToolDefinition], choice: str
    ) -> tuple[TokenMask, str]:
        from llm_local.constraints.grammars import CallGrammar

        if constraint is not None:
            raise InvalidRequest(
                f"A constraint cannot be kept where tool_choice {choice!r} makes the answer a call.",
                "Drop one of the two.",
                param="tool_choice",
            )
        try:
            lead, calls = forced_calls(self._reply.tools, tools, choice, self._token_of)
            return self._compiler.mask(CallGrammar(calls, is_json=self._json_calls)), lead
        except InvalidRequest as error:
            if error.param == "tool_choice":
                raise
            what = f"tool_choice {choice!r} cannot be kept: {error.message}"
            raise InvalidRequest(what, error.hint, param="tool_choice") from None

    def _either(self, constraint: Constraint, tools: Sequence[ToolDefinition], answers: str) -> TokenMask:
        """An answer as the constraint says, or calls."""
        from llm_local.constraints.alternatives import Alternative
        from llm_local.constraints.grammars import CallGrammar

        spell = self._template.spell
        try:
            lead, calls = forced_calls(self._reply.tools, tools, "required", self._token_of)
            other = Alternative(
                spell(lead), CallGrammar(calls, is_json=self._json_calls), spell(answers) if answers else ()
            )
            return self._compiler.mask(constraint, other)
        except InvalidRequest as error:
            if error.param == "constraint":
                raise
            raise InvalidRequest(
                f"Beside these tools no constraint can be kept: {error.message}",
                "Set tool_choice to none, or drop the constraint.",
                param="tool_choice",
            ) from None

    @property
    def _json_calls(self) -> bool:
        envelope = self._reply.tools.envelope
        return envelope is not None and envelope.arguments is None

    def _token_of(self, text: str) -> int | None:
        token_ids = self._template.spell(text)
        return token_ids[0] if len(token_ids) == 1 else None

    def _reasoning(
        self, tags: ReasoningTags, prompt: str, max_tokens: int | None, *, exact: bool
    ) -> Reasoning:
        from llm_local.constraints.reasoning_gate import Reasoning

        # models close their reasoning on a line of its own; an exact answer begins right behind the tag
        closing = tags.closes if tags.anywhere else f"\n{tags.closes}" + ("" if exact else "\n\n")
        return Reasoning(
            piece=self._piece,
            opens=tags.opens,
            closes=tags.closes,
            open_ids=self._template.spell(tags.opens),
            close_ids=self._template.spell(closing),
            opened=self._template.opens_reasoning(prompt),
            always=bool(tags.answers),
            again=tags.anywhere,
            max_tokens=max_tokens,
            beyond=self._beyond if exact else {},
        )

    @cached_property
    def _shown(self) -> Mapping[int, str]:
        return self._reply.shown(tools=False)

    def _piece(self, token_id: int) -> str:
        text: str = self._loaded.tokenizer.decode(
            [token_id], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return self._shown.get(token_id, text)

    @cached_property
    def _beyond(self) -> Mapping[int, Sequence[int]]:
        """The ids in which reasoning ends and something else begins."""
        from llm_local.constraints.reasoning_gate import ids_beyond

        tags = self._template.tags
        if tags is None:
            return {}
        vocabulary = self._loaded.tokenizer.get_vocab()
        # of a hundred thousand tokens few can be meant, and only these are decoded
        found = (token_id for text, token_id in vocabulary.items() if tags.closes[-1] in str(text)[:-1])
        return ids_beyond(tags.closes, ((token_id, self._piece(token_id)) for token_id in found))

    @property
    def _compiler(self) -> ConstraintCompiler:
        with self._making_compiler:  # it is large, and what it keeps is for all threads
            if self._made_compiler is None:
                # Late: it loads libraries that only constrained requests need.
                from llm_local.constraints.compiler import ConstraintCompiler

                loaded = self._loaded
                self._made_compiler = ConstraintCompiler(
                    loaded.tokenizer, loaded.info.vocab_size, loaded.end_token_ids
                )
            return self._made_compiler
