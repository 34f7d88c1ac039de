"""Sessions for tests: a scripted engine under the real generator, and an archive that can be told to fail."""

from __future__ import annotations

from types import SimpleNamespace

from fakes import ByteTokenizer, FakeClock, ScriptedEngine
from llm_local.chat.archive import Archive
from llm_local.chat.session import ChatSession
from llm_local.config import load_config
from llm_local.conversations.store import ConversationStore
from llm_local.errors import StorageError
from llm_local.generator import TextGenerator
from llm_local.specs import ModelInfo

CHATML = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


class ChatMlTokenizer(ByteTokenizer):
    """Bytes, with a chat template of plain text."""

    chat_template = CHATML


def make_model(
    *replies, ref="scripted", context_length=4096, tokenizer=None, weight_bytes=100, defaults=None
):
    """A model whose replies are given as texts, lists of ids, or errors in a list."""
    tokenizer = tokenizer or ChatMlTokenizer()
    engine = ScriptedEngine()
    for reply in replies:
        engine.enqueue([*reply.encode(), ByteTokenizer.end_token] if isinstance(reply, str) else list(reply))
    info = ModelInfo(
        ref=ref,
        path="",
        architecture="Scripted",
        num_parameters=1,
        weight_bytes=weight_bytes,
        dtype="float32",
        device="cpu",
        context_length=context_length,
        vocab_size=tokenizer.vocab_size,
        has_chat_template=True,
    )
    loaded = SimpleNamespace(
        tokenizer=tokenizer, info=info, end_token_ids=frozenset({ByteTokenizer.end_token})
    )
    return SimpleNamespace(
        generator=TextGenerator(loaded, engine=engine),
        info=info,
        generation_defaults=defaults or {},
        load_s=0.5,
        notices=(),
        engine=engine,
    )


def make_config(**flags):
    """Settings from nowhere but here."""
    return load_config(flags, environ={}, env_file=None)


def make_session(*replies, archive=None, model=None, flags=None, **more):
    """A session of a scripted model."""
    model = model or make_model(*replies)
    more.setdefault("clock", FakeClock())
    return ChatSession(model, make_config(**(flags or {})), archive=archive, **more)


def make_archive(tmp_path):
    """A real store of its own."""
    return Archive(ConversationStore.open(tmp_path / "conversations.db"))


def run(reply):
    """Read an answer to its end."""
    for _ in reply:
        pass
    return reply.completion


def said(session):
    """The conversation as (role, content) pairs."""
    return [(one.role, one.content) for one in session.messages]


def stored(archive, session):
    """The same as the archive has it, with the status of each."""
    messages = archive.messages(session.conversation.id)
    return [(one.message.role, one.message.content, one.status) for one in messages]


class FailingArchive:
    """An archive whose disk can be filled, and is full from the start if so wanted."""

    def __init__(self, archive):
        self._archive = archive
        self.full = False

    def __getattr__(self, name):
        method = getattr(self._archive, name)

        def guarded(*args, **named):
            if self.full:
                raise StorageError("The disk is full.")
            return method(*args, **named)

        return guarded
