"""Every failure llm-local raises on purpose, in one tree.

    LocalLLMError                      kind (default)            meaning
    ├── InvalidRequest                 invalid_value             the caller's mistake; `param` names the field
    │   ├── ContextLengthExceeded      context_length_exceeded   prompt + reserve do not fit the window
    │   └── UnsupportedTask            unsupported_task          the model is not made for what was asked
    ├── ConfigError                    invalid_config            a setting cannot be used; `param` names the key
    ├── ModelNotFound                  model_not_found           no such model, here or on the hub
    ├── ConversationNotFound           conversation_not_found    no such conversation, or it is somebody else's
    ├── AccessDenied                   access_denied             gated, private, or a wrong token
    ├── HubUnavailable                 hub_unavailable           the hub cannot be reached, or we are offline
    ├── StorageError                   insufficient_storage      disk full, read-only, or no permission
    ├── DatabaseUnusable               database_unusable         the database is damaged, or of a newer version
    ├── InsufficientMemory             insufficient_memory       the model does not fit; both numbers are in the message
    ├── ModelCorrupt                   model_corrupt             weights or metadata are damaged; the file is named
    │   └── UnsafeWeights              unsafe_weights            pickle weights or remote code, refused
    ├── Busy                           busy                      no room now; try again later
    ├── PluginFailed                   plugin_failed             a plug-in that was asked for cannot be used
    ├── McpServerError                 tool_server_failed        a tool server did not start, or ended
    └── EngineError                    engine_error              generation itself failed
        └── NumericalError             numerical_error           the model produced NaN logits

A message is one sentence: what failed and on which object. The hint is one sentence: what to do about it.
Front-ends never inspect messages: they map `kind` to an exit code or an HTTP status in one table each.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "Busy",
    "ConfigError",
    "ContextLengthExceeded",
    "ConversationNotFound",
    "DatabaseUnusable",
    "EngineError",
    "HubUnavailable",
    "InsufficientMemory",
    "InvalidRequest",
    "LocalLLMError",
    "McpServerError",
    "ModelCorrupt",
    "ModelNotFound",
    "NumericalError",
    "PluginFailed",
    "StorageError",
    "UnsafeWeights",
    "UnsupportedTask",
]


class LocalLLMError(Exception):
    """Root of the tree. Carries `kind` (stable snake_case), `message` and `hint`."""

    kind: str = "internal_error"

    def __init__(self, message: str, hint: str = "", *, kind: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if kind is not None:
            self.kind = kind

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class InvalidRequest(LocalLLMError):
    """The caller's mistake. `param` is the name of the offending field, or None."""

    kind = "invalid_value"

    def __init__(
        self, message: str, hint: str = "", *, param: str | None = None, kind: str | None = None
    ) -> None:
        super().__init__(message, hint, kind=kind)
        self.param = param


class ContextLengthExceeded(InvalidRequest):
    """The prompt and the room reserved for the reply do not fit the context window. All counts in tokens."""

    kind = "context_length_exceeded"

    def __init__(self, *, prompt_tokens: int, reserve: int, context_length: int) -> None:
        super().__init__(
            f"The prompt has {prompt_tokens} tokens and {reserve} are reserved for the reply, "
            f"but the model's context length is {context_length} tokens.",
            "Shorten the prompt, ask for fewer new tokens, or use a model with a longer context.",
            param="prompt",
        )
        self.prompt_tokens = prompt_tokens
        self.reserve = reserve
        self.context_length = context_length


class UnsupportedTask(InvalidRequest):
    """The model exists and loads, but is not made for this task (an encoder asked to chat)."""

    kind = "unsupported_task"


class ConfigError(LocalLLMError):
    """A setting cannot be used. `param` is the key as the user spelled it."""

    kind = "invalid_config"

    def __init__(self, message: str, hint: str = "", *, param: str | None = None) -> None:
        super().__init__(message, hint)
        self.param = param


class ModelNotFound(LocalLLMError):
    """No model of that name, neither on this machine nor on the hub."""

    kind = "model_not_found"


class ConversationNotFound(LocalLLMError):
    """The owner has no conversation of that id. One of another owner is answered with the very same words."""

    kind = "conversation_not_found"


class AccessDenied(LocalLLMError):
    """The hub refused: the model is gated or private, or the token is wrong."""

    kind = "access_denied"


class HubUnavailable(LocalLLMError):
    """The model hub cannot be reached, or the network is switched off by configuration."""

    kind = "hub_unavailable"


class StorageError(LocalLLMError):
    """The disk refused: no space, no permission, read-only."""

    kind = "insufficient_storage"


class DatabaseUnusable(LocalLLMError):
    """A database was damaged (then it was moved aside), is no database, or is of a newer version of the program."""

    kind = "database_unusable"


class InsufficientMemory(LocalLLMError):
    """The model needs more memory than there is. Sizes in bytes."""

    kind = "insufficient_memory"

    def __init__(self, message: str, hint: str = "", *, need_bytes: int, have_bytes: int) -> None:
        super().__init__(message, hint)
        self.need_bytes = need_bytes
        self.have_bytes = have_bytes


class ModelCorrupt(LocalLLMError):
    """A file of the model is damaged, truncated or missing. `file` is its name inside the model."""

    kind = "model_corrupt"

    def __init__(
        self, message: str, hint: str = "", *, file: str | None = None, kind: str | None = None
    ) -> None:
        super().__init__(message, hint, kind=kind)
        self.file = file


class UnsafeWeights(ModelCorrupt):
    """The model only offers what can run code on loading: pickle weights or remote modules."""

    kind = "unsafe_weights"


class Busy(LocalLLMError):
    """No capacity now. `retry_after_s` is a hint in seconds, or None."""

    kind = "busy"

    def __init__(
        self, message: str, hint: str = "", *, retry_after_s: float | None = None, kind: str | None = None
    ) -> None:
        super().__init__(message, hint, kind=kind)
        self.retry_after_s = retry_after_s


class PluginFailed(LocalLLMError):
    """A plug-in that was asked for cannot be used; the message names it, its package and the reason."""

    kind = "plugin_failed"


class McpServerError(LocalLLMError):
    """A tool server did not start, ended, or broke the protocol; the message names its command."""

    kind = "tool_server_failed"


class EngineError(LocalLLMError):
    """Generation failed for a reason that is not the caller's."""

    kind = "engine_error"


class NumericalError(EngineError):
    """The model's logits are not numbers; the request fails alone."""

    kind = "numerical_error"
