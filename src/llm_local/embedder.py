"""The embedder door: texts in, one vector each out, as the model's repository says.

    embedder = TextEmbedder.load(ModelSpec("sentence-transformers/all-MiniLM-L6-v2"))
    embedder.embed(["a text", "another"]).vectors        # float32 numpy [2, 384]

A vector is a function of its text alone: what else is in the call changes how fast it comes, not what it is.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from llm_local.embedding.batches import BATCH_TOKENS, GPU_BATCH_TOKENS, plan_batches
from llm_local.embedding.layout import POOLING_MODES, Layout, Normalize, Pooling, PoolingMode, read_layout
from llm_local.embedding.pooling import Head, pool
from llm_local.embedding.texts import PreparedTexts, TextReader, number_of
from llm_local.errors import InvalidRequest, NumericalError, UnsupportedTask
from llm_local.events import Progress
from llm_local.loaders.encoder_lm import LoadedEncoder, load_encoder
from llm_local.model_loader import ResolvedModel, resolve_model
from llm_local.specs import ModelInfo, ModelSpec
from llm_local.store.usage import use_model

__all__ = ["EmbedOptions", "Embedding", "Embeddings", "TextEmbedder"]

_CHANGES: Final = "--pooling, --normalize and --no-normalize say it otherwise."


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How texts become vectors.

    - `prompt_name`: a prompt of the repository to put in front of each text; `prompt`: any text instead. Without either
      the repository's default holds; an empty `prompt` means none.
    - `dimensions`: keep so many numbers of each vector, and scale them to length 1 again where vectors are normalized.
    - `truncate`: cut texts that are too long instead of refusing them.
    """

    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: int | None = None
    truncate: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """One text's vector, float32 [dimensions], and its place among the texts, from 0.

    `prompt_tokens` is what the model read; `truncated_tokens` of the text's end were left out.
    """

    index: int
    vector: np.ndarray[Any, Any]
    prompt_tokens: int
    truncated_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The vectors of several texts, float32 [texts, dimensions], in the order of the texts.

    `token_counts` and `truncated_tokens` are per text, as in `Embedding`.
    """

    vectors: np.ndarray[Any, Any]
    token_counts: tuple[int, ...]
    truncated_tokens: tuple[int, ...]
    embed_s: float

    @property
    def prompt_tokens(self) -> int:
        """All tokens that the model read, without padding."""
        return sum(self.token_counts)


class TextEmbedder:
    """One loaded model that embeds. Use it from one thread at a time.

    `layout` is what its repository says; `pooling` and `normalize` go before it. `batch_tokens` bounds the memory of a
    forward pass.

    Raises (from the constructor):
        ModelCorrupt, UnsafeWeights: the weights of a projection cannot be used.
        UnsupportedTask: the model needs more than ids and a mask.
        InvalidRequest: no such pooling, or no such number of tokens.
    """

    def __init__(
        self,
        loaded: LoadedEncoder,
        layout: Layout,
        *,
        pooling: PoolingMode | None = None,
        normalize: bool | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        if pooling is not None and pooling not in POOLING_MODES:
            raise InvalidRequest(
                f"The pooling is {pooling!r}, but must be one of {', '.join(POOLING_MODES)}.", param="pooling"
            )
        if batch_tokens is None:
            batch_tokens = BATCH_TOKENS if loaded.info.device == "cpu" else GPU_BATCH_TOKENS
        if batch_tokens < 1:
            raise InvalidRequest("A batch must have at least 1 token.", param="batch_tokens")
        layout, notice = _completed(layout, loaded, pooling, normalize)
        self.info: ModelInfo = loaded.info
        self.layout = layout
        self.load_s = loaded.load_s
        self.notices = tuple(filter(None, (*loaded.notices, notice)))
        self._loaded = loaded
        self._batch_tokens = batch_tokens
        self._pooling = layout.pooling or Pooling(("mean",))
        self._reader = TextReader(loaded.tokenizer, layout, loaded.info.context_length)
        config = loaded.model.config.get_text_config()
        self._head = Head(
            layout.steps, len(self._pooling.modes) * int(config.hidden_size), str(loaded.model.device)
        )
        self._pad = _padding_id(config, loaded.tokenizer)
        types = loaded.tokenizer(["a"], return_token_type_ids=True).get("token_type_ids")
        if types and any(map(any, types)):
            raise UnsupportedTask(
                f"{self.info.architecture} tells its tokens apart by types, which is not supported for embeddings."
            )

    @classmethod
    def load(
        cls,
        spec: ModelSpec | ResolvedModel,
        *,
        pooling: PoolingMode | None = None,
        normalize: bool | None = None,
        batch_tokens: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> TextEmbedder:
        """Find, read and load a model, and say in `notices` what its repository does not.

        Raises:
            Busy: it is being removed just now.
            LocalLLMError: all that `resolve_model`, `read_layout`, `load_encoder` and the constructor raise.
        """
        found = (
            spec
            if isinstance(spec, ResolvedModel)
            else resolve_model(spec, explicit=True, on_progress=on_progress)
        )
        use = use_model(found.path)
        layout = read_layout(found.path)
        loaded = load_encoder(
            found.spec,
            layout.folder,
            declared=layout.pooling is not None,
            max_tokens=layout.max_tokens,
            on_progress=on_progress,
        )
        notices = (found.notice, *loaded.notices) if found.notice else loaded.notices
        loaded = dataclasses.replace(loaded, notices=notices, use=use)
        return cls(loaded, layout, pooling=pooling, normalize=normalize, batch_tokens=batch_tokens)

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        return self._head.size

    @property
    def pooling(self) -> str:
        """How hidden states become a vector, for people and programs: `mean`, or `cls+mean`."""
        return "+".join(self._pooling.modes)

    @property
    def normalized(self) -> bool:
        """True when vectors have length 1."""
        return bool(self.layout.steps) and isinstance(self.layout.steps[-1], Normalize)

    def embed(
        self,
        texts: Sequence[str],
        options: EmbedOptions | None = None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        **changes: Any,
    ) -> Embeddings:
        """The vectors of `texts`. `changes` are fields of EmbedOptions: `embed(texts, prompt_name="query")`.

        Raises:
            InvalidRequest: an option cannot be used, or a text is empty, no text, or too long.
            NumericalError: a vector is not finite.
        """
        began = time.perf_counter()
        options = dataclasses.replace(options or EmbedOptions(), **changes)
        prepared = self.prepare(texts, options)
        size = self._size(options)
        vectors = np.empty((len(prepared.ids), size), dtype=np.float32)
        for one in self.stream(prepared, options, on_progress=on_progress):
            vectors[one.index] = one.vector
        counts = tuple(map(len, prepared.ids))
        return Embeddings(vectors, counts, prepared.left_out, time.perf_counter() - began)

    def prepare(
        self, texts: Sequence[str], options: EmbedOptions, name_of: Callable[[int], str] = number_of
    ) -> PreparedTexts:
        """Token ids of `texts`; all that can be wrong with them is wrong here. `name_of` names one in a message.

        Raises:
            InvalidRequest: as in `embed`.
        """
        self._size(options)
        prompt = self._reader.choose_prompt(options.prompt_name, options.prompt)
        return self._reader.read(texts, prompt, truncate=options.truncate, name_of=name_of)

    def prepare_ids(self, texts: Sequence[Sequence[int]], options: EmbedOptions) -> PreparedTexts:
        """Token ids as they are, without any prompt.

        Raises:
            InvalidRequest: as in `embed`, also for an id that the model does not have.
        """
        self._size(options)
        return self._reader.take(texts, self.info.vocab_size, truncate=options.truncate)

    def stream(
        self,
        prepared: PreparedTexts,
        options: EmbedOptions,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[Embedding]:
        """The vectors one by one in the order of the texts, each as soon as it and all before it are there.

        `stopped` is asked before each forward pass; what is complete by then still comes.
        """
        size = self._size(options)
        lengths = [len(ids) for ids in prepared.ids]
        waiting: dict[int, np.ndarray[Any, Any]] = {}
        given = done = 0
        for batch in plan_batches(lengths, self._batch_tokens):
            if stopped():
                return
            vectors = self._run([prepared.ids[index] for index in batch], prepared.num_prompt_tokens, size)
            for index, vector in zip(batch, vectors, strict=True):
                if not np.isfinite(vector).all():
                    raise NumericalError(
                        f"The embedding of text {index + 1} is not finite.", "Use --dtype float32."
                    )
                waiting[index] = vector
            done += sum(lengths[index] for index in batch)
            if on_progress is not None:
                on_progress(Progress("embedding", done, prepared.num_tokens, "tokens"))
            while given in waiting:
                yield Embedding(given, waiting.pop(given), lengths[given], prepared.left_out[given])
                given += 1

    def _size(self, options: EmbedOptions) -> int:
        """How many numbers a vector keeps."""
        asked = options.dimensions
        if asked is None:
            return self.dimensions
        if not isinstance(asked, int) or not 1 <= asked <= self.dimensions:
            raise InvalidRequest(
                f"Vectors of {asked} dimensions are asked for, but the model's have {self.dimensions}.",
                f"Ask for 1 to {self.dimensions}.",
                param="dimensions",
            )
        return asked

    def _run(
        self, texts: Sequence[np.ndarray[Any, Any]], num_prompt_tokens: int, size: int
    ) -> np.ndarray[Any, Any]:
        """The vectors of one batch, float32 [texts, size]."""
        longest = max(map(len, texts))
        ids = np.full((len(texts), longest), self._pad, dtype=np.int64)
        mask = np.zeros((len(texts), longest), dtype=np.int64)
        for row, one in enumerate(texts):
            ids[row, : len(one)] = one
            mask[row, : len(one)] = 1
        model = self._loaded.model
        extra = {"use_cache": False} if self._loaded.causal else {}
        with torch.inference_mode():
            on_device = torch.from_numpy(mask).to(model.device)
            found = model(input_ids=torch.from_numpy(ids).to(model.device), attention_mask=on_device, **extra)
            vectors = self._head(pool(found.last_hidden_state, on_device, self._pooling, num_prompt_tokens))
            if size < self.dimensions:
                vectors = vectors[:, :size]
                if self.normalized:
                    vectors = torch.nn.functional.normalize(vectors, dim=1)
            return np.ascontiguousarray(vectors.cpu().numpy())


def _completed(
    layout: Layout, loaded: LoadedEncoder, pooling: PoolingMode | None, normalize: bool | None
) -> tuple[Layout, str]:
    """The layout with what the caller wants and with the usual where the repository is silent, and a notice of that."""
    chosen = layout.pooling
    told = []
    if pooling is not None:
        chosen = Pooling((pooling,), include_prompt=chosen is None or chosen.include_prompt)
    elif chosen is None:
        chosen = Pooling(("last",) if loaded.causal else ("mean",))
        told.append("the last token, since it is a decoder" if loaded.causal else "the mean over all tokens")
    steps = layout.steps
    if normalize is None and not layout.has_modules:
        steps = (*steps, Normalize())
        told.append("normalized to length 1")
    elif normalize is True and not (steps and isinstance(steps[-1], Normalize)):
        steps = (*steps, Normalize())
    elif normalize is False:
        while steps and isinstance(steps[-1], Normalize):
            steps = steps[:-1]
    notice = ""
    if told:
        usual = ", ".join(told)
        notice = f"{loaded.info.ref} does not say how its hidden states become embeddings: they are {usual}. {_CHANGES}"
    return dataclasses.replace(layout, pooling=chosen, steps=steps), notice


def _padding_id(config: Any, tokenizer: Any) -> int:
    """What fills the places behind a text; RoBERTa's position of a token depends on it, so the model goes first."""
    for found in (getattr(config, "pad_token_id", None), tokenizer.pad_token_id):
        if isinstance(found, int) and 0 <= found < int(config.vocab_size):
            return found
    return 0
