"""The engine: a step is schedule, run, postprocess."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf

import torch

from llm_local.engine.abandoned import Abandoned
from llm_local.engine.admission import check_memory, check_request, out_of_memory, reserved_tokens
from llm_local.engine.late_masks import MOMENT_S, WAIT_S, Held, comes_within
from llm_local.engine.prefix_cache import PrefixCache
from llm_local.engine.prompt_scores import score_prompt
from llm_local.engine.protocol import EngineStep, PrefillStep, TokenRequest, TokenStep
from llm_local.engine.scheduler import Scheduler
from llm_local.engine.sequence import Branch, Chunk, Runner, Sequence
from llm_local.engine.speculative import Drafter, guess_ahead
from llm_local.errors import (
    EngineError,
    InvalidRequest,
    LocalLLMError,
    NumericalError,
)
from llm_local.events import FinishReason
from llm_local.sampling.sampler import Sampled, Sampler

__all__ = ["BatchEngine"]


class BatchEngine:
    """Continuous batching over a runner. Satisfies `protocol.Engine`; used from one thread."""

    def __init__(
        self,
        runner: Runner,
        *,
        context_length: int,
        vocab_size: int,
        prefix_cache: PrefixCache | None = None,
        drafter: Drafter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._context_length = context_length
        self._vocab_size = vocab_size
        self._drafter = drafter
        self._clock = clock
        self._scheduler = Scheduler(runner.budget, runner.max_chunk_tokens, prefix_cache)
        self._sequences: dict[str, Sequence] = {}
        self._outbox: list[EngineStep] = []
        self.explain: Callable[[NumericalError], LocalLLMError] = lambda error: error
        """What is told instead of an error about logits that are no numbers: asked once for each that fails."""

    def submit(self, request: TokenRequest) -> None:
        """Queue a sequence; see `protocol.Engine.submit` for what is refused."""
        max_tokens = self._check(request)
        sequence = Sequence(
            request,
            self._runner.new_state(len(request.prompt_ids) + reserved_tokens(request)),
            Sampler(request.options, request.prompt_ids, self._vocab_size),
            max_tokens,
        )
        sequence.submitted_at = self._clock()
        self._sequences[request.sequence_id] = sequence
        self._scheduler.add(sequence)

    def step(self) -> list[EngineStep]:
        """Schedule, run, postprocess."""
        now = self._clock()
        self._end_cancelled()
        chunks: list[Chunk] = []
        try:
            self._resume(0)  # who was waited for once does not keep the others again
            drafts = guess_ahead(self._drafter, self._scheduler.running, self._vocab_size)
            chunks = self._scheduler.schedule(drafts)
            for chunk in chunks:
                if chunk.sequence.scheduled_at is None:
                    chunk.sequence.scheduled_at = now
            if chunks:
                self._run(chunks)
            else:
                self._wait()
        except BaseException:
            self._level()
            raise
        finally:
            for chunk in chunks:
                if isinstance(chunk.sequence, Branch):
                    chunk.sequence.release()
        # only now: what happened before an interruption is not lost, the next step delivers it
        outputs, self._outbox = self._outbox, []
        return outputs

    def cancel(self, sequence_id: str) -> None:
        """Mark a sequence; the next step ends it. Only sets a flag, so a signal handler may call it."""
        sequence = self._sequences.get(sequence_id)
        if sequence is not None:
            sequence.cancelled = True

    def has_work(self) -> bool:
        """True while a sequence waits or runs, or has steps to deliver."""
        return bool(self._sequences or self._outbox)

    @property
    def description(self) -> str:
        """What computes the forward passes, in a few words for people."""
        return self._runner.description

    def stats(self) -> Mapping[str, int]:
        """Counts now. `kv_used_bytes` includes the prefix cache; `kv_limit_bytes` is -1 without a limit."""
        budget, cache = self._runner.budget, self._scheduler.prefix_cache
        return {
            "waiting": len(self._scheduler.waiting),
            "running": len(self._scheduler.running),
            "kv_used_bytes": budget.used_bytes,
            "prefix_cache_bytes": 0 if cache is None else cache.num_bytes,
            "kv_limit_bytes": -1 if budget.limit_bytes is None else budget.limit_bytes,
        }

    def _check(self, request: TokenRequest) -> int:
        """Refuse what can never run, before any compute; return the cap on prompt and reply together."""
        max_tokens = check_request(request, context_length=self._context_length, vocab_size=self._vocab_size)
        if request.sequence_id in self._sequences:
            raise InvalidRequest(f"Sequence id {request.sequence_id!r} is in use.", param="sequence_id")
        check_memory(request, self._runner)
        return max_tokens

    def _end_cancelled(self) -> None:
        for sequence in [s for s in self._sequences.values() if s.cancelled]:
            self._end(sequence, finish_reason="cancelled")

    def _run(self, chunks: list[Chunk]) -> None:
        """One forward pass; when it fails, each sequence alone and without guesses, so only the guilty ones fail."""
        for sequence in {id(chunk.sequence.root): chunk.sequence.root for chunk in chunks}.values():
            if sequence.continuations is not None:
                sequence.continuations.num_passes += 1
        try:
            logits = self._runner.run(chunks)
            if len(logits) != sum(chunk.num_logits for chunk in chunks):
                raise EngineError("The model returned logits for another number of tokens than asked for.")
        except Abandoned:
            return  # the next step ends them all
        except Exception as error:
            alone = [self._rolled_back(chunk) for chunk in chunks]
            if len(chunks) == 1 and not chunks[0].drafts:
                self._fail(chunks[0].sequence.root, error)
            else:
                for chunk in alone:
                    if self._lives(chunk.sequence.root):
                        self._run([chunk])
        else:
            self._postprocess(chunks, logits)

    def _rolled_back(self, chunk: Chunk) -> Chunk:
        """The chunk to try again after a failed forward: without guesses, and whole where all had to be forgotten."""
        sequence = chunk.sequence
        if sequence.state.rollback(sequence.num_computed):
            return Chunk(sequence, chunk.num_pending)
        sequence.num_computed = 0
        return Chunk(sequence, sequence.num_pending)

    def _level(self) -> None:
        """After Ctrl-C or the like: what was computed, and led to no token yet, is forgotten and computed again."""
        for sequence in self._scheduler.running:
            sequence.held = None
            sequence.num_computed = min(sequence.num_computed, len(sequence.tokens) - 1)
            if not sequence.state.rollback(sequence.num_computed):
                sequence.num_computed = 0

    def _postprocess(self, chunks: list[Chunk], logits: torch.Tensor) -> None:
        """Sample for every chunk that reached its sequence's end; report progress for the others."""
        for chunk, rows in zip(chunks, logits.split([chunk.num_logits for chunk in chunks]), strict=True):
            sequence, completes = chunk.sequence, chunk.completes
            if isinstance(sequence, Branch):
                self._collect(sequence.parent, sequence.path, rows[-len(sequence.path) :])
                continue
            try:
                scored = score_prompt(chunk, rows)
            except NumericalError as error:
                self._fail(sequence, error)
                continue
            sequence.num_computed += chunk.num_pending
            if sequence.num_completion_tokens == 0:
                done, total = sequence.num_computed, sequence.num_prompt_tokens
                self._outbox.append(PrefillStep(sequence.sequence_id, done, total, scored))
            if completes and sequence.continuations is not None:
                self._collect(sequence, (), rows[-1:])
            elif completes:
                sequence.num_drafted += len(chunk.drafts)
                self._confirm(sequence, chunk.drafts, rows[-1 - len(chunk.drafts) :])

    def _collect(self, sequence: Sequence, path: tuple[int, ...], rows: torch.Tensor) -> None:
        """Score continuations by the logits after each token of a path, or after the prompt; all scored is the end."""
        continuations = sequence.continuations
        if continuations is None or not self._lives(sequence):
            return
        try:
            if path:
                continuations.take(path, rows)
            else:
                continuations.take_prompt(rows[0])
        except NumericalError as error:
            self._fail(sequence, error)
            return
        if continuations.done:
            self._end(sequence, finish_reason="stop")

    def _lives(self, sequence: Sequence) -> bool:
        """False once a sequence has ended, as it may while others of its forward pass are looked at."""
        return self._sequences.get(sequence.sequence_id) is sequence

    def _confirm(self, sequence: Sequence, drafts: SequenceOf[int], rows: torch.Tensor) -> None:
        """Sample after the last token, and after each guess as long as the guesses are what was sampled.

        `rows` `[1 + guesses, vocab]`. Where a mask is late they are held, and the next step begins with them.
        """
        for place, (row, guess) in enumerate(zip(rows, [*drafts, None], strict=True)):
            if not comes_within(MOMENT_S, sequence.request.mask):
                sequence.held = Held(rows[place:].clone(), tuple(drafts[place:]))
                return
            step = self._advance(sequence, row)
            if step.last:
                return
            self._outbox.append(step)
            if step.token_id != guess:
                break
            sequence.num_accepted += 1
            sequence.num_computed += 1
        if drafts:
            sequence.state.rollback(sequence.num_computed)

    def _resume(self, seconds: float) -> None:
        """Sample for those whose mask was late and has come since, or comes within so long."""
        for sequence in list(self._scheduler.running):
            held = sequence.held
            if held is not None and comes_within(seconds, sequence.request.mask):
                sequence.held = None
                self._confirm(sequence, held.drafts, held.rows)

    def _wait(self) -> None:
        """Nothing can run: because of late masks, or because somebody has outgrown the memory for good."""
        self._resume(WAIT_S)
        stuck = self._scheduler.stuck()
        if stuck is not None:
            need_bytes = stuck.state.bytes_to_append(stuck.num_pending)
            self._fail(stuck, out_of_memory(self._runner.budget, need_bytes))

    def _advance(self, sequence: Sequence, logits: torch.Tensor) -> TokenStep:
        """Sample one token; the last one ends the sequence and is delivered here."""
        mask = sequence.request.mask
        try:
            sampled = sequence.sampler.sample(logits, None if mask is None else mask.allowed())
            if mask is not None:
                mask.accept(sampled.token_id)
        except Exception as error:  # a mask is foreign code, and its failure is this sequence's alone
            return self._fail(sequence, error)
        if sequence.first_token_at is None:
            sequence.first_token_at = self._clock()
        sequence.tokens.append(sampled.token_id)
        if sampled.token_id in sequence.request.stop_token_ids:
            return self._end(sequence, sampled, finish_reason="stop")
        if len(sequence.tokens) >= sequence.max_tokens:
            return self._end(sequence, sampled, finish_reason="length")
        return TokenStep(sequence.sequence_id, sampled.token_id, sampled.logprob)

    def _fail(self, sequence: Sequence, error: Exception) -> TokenStep:
        if not isinstance(error, LocalLLMError):
            failure = EngineError(f"Generating failed with {type(error).__name__}: {error}")
            failure.__cause__ = error
            error = failure
        elif isinstance(error, NumericalError):
            error = self.explain(error)
        return self._end(sequence, error=error)

    def _end(
        self,
        sequence: Sequence,
        sampled: Sampled | None = None,
        *,
        finish_reason: FinishReason | None = None,
        error: LocalLLMError | None = None,
    ) -> TokenStep:
        self._scheduler.remove(sequence, keep=error is None)
        if self._drafter is not None:
            self._drafter.forget(sequence)
        del self._sequences[sequence.sequence_id]
        step = TokenStep(
            sequence.sequence_id,
            None if sampled is None else sampled.token_id,
            None if sampled is None else sampled.logprob,
            finish_reason=finish_reason,
            error=error,
            report=sequence.report(self._clock()),
            scores=sequence.scores if error is None else None,
        )
        self._outbox.append(step)
        return step
