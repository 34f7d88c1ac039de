"""The routes of `/api/v1`. Errors are in the native envelope; what a body does not know is refused by name."""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from llm_local.api.bodies import EmptyBody, json_body, read_body, read_json, validate
from llm_local.api.dependencies import admin_only, caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import NativeEnvelope, json_response
from llm_local.api.keeping import conversations_of
from llm_local.api.legacy.current import current_models_of
from llm_local.api.legacy.schemas import (
    LoadModelBody,
    MessageBody,
    NewChatBody,
    PromptBody,
    SwitchModelBody,
)
from llm_local.api.legacy.translate import (
    chat_body,
    conversation_object,
    loaded_object,
    message_object,
    model_object,
    text_body,
    to_answer,
    to_chunk,
)
from llm_local.api.native.conversation import find_keeper
from llm_local.api.native.replies import Run
from llm_local.api.native.translate import chat_work, refuse_unknown, text_work
from llm_local.api.streams import sse
from llm_local.conversations.records import Conversation
from llm_local.messages import Message

__all__ = ["PREFIX", "envelope", "router"]

PREFIX: Final = "/api/v1"
router: Final = APIRouter(prefix=PREFIX, tags=["legacy"])
envelope: Final = NativeEnvelope()
"""Said by name, since other paths below `/api` are another dialect's."""


@router.post("/chat", openapi_extra=json_body(MessageBody, hello={"message": "Hello!", "max_tokens": 40}))
async def chat(request: Request) -> Response:
    """Answer a message, in a conversation that is kept. Without `conversation_id` it begins one.

    `curl http://127.0.0.1:8000/api/v1/chat -d '{"message": "Hello!"}'`
    """
    began = time.monotonic()
    body = await read_body(request, MessageBody)
    refuse_unknown(body)
    if not body.stream:
        return await until_gone(request, _chat_answer(request, body, began))
    run = await until_gone(request, _begin_chat(request, body, began))
    return sse(request, _Chunks(run), headers=run.headers)


@router.post("/chat/new", status_code=201, openapi_extra=json_body(NewChatBody, empty={}))
async def new_chat(request: Request) -> Response:
    """Begin a conversation, perhaps with a model, a system prompt and a title.

    `curl http://127.0.0.1:8000/api/v1/chat/new -d '{"system_prompt": "Answer in one sentence."}'`
    """
    try:
        given = await read_json(request)
    except EmptyBody:  # nothing of it is needed
        given = {}
    body = validate(NewChatBody, given)
    refuse_unknown(body)
    owner = caller_of(request).owner
    model = body.model or current_models_of(request).of(owner)
    if body.model is not None:
        model = (await service_of(request).show(_asked(request, body.model))).known.name
    messages = [] if body.system_prompt is None else [Message("system", body.system_prompt)]
    made = await conversations_of(request).do(
        lambda store: store.create(owner, title=body.title, model=model, messages=messages)
    )
    return json_response(conversation_object(made), 201, {"location": f"/api/v1/chat/conversation/{made.id}"})


@router.get("/chat/models")
async def chat_models(request: Request) -> Response:
    """The models on this machine that write, and which of them the caller's next conversation begins with.

    `curl http://127.0.0.1:8000/api/v1/chat/models`
    """
    current = current_models_of(request).of(caller_of(request).owner)
    found = await service_of(request).models()
    shown = [
        model_object(one, current)
        for one in found
        if one.state == "complete" and one.capabilities & {"chat", "completion"}
    ]
    return json_response({"current_model": current, "models": shown})


@router.post("/chat/switch-model", openapi_extra=json_body(SwitchModelBody, starter={"model": "starter"}))
async def switch_model(request: Request) -> Response:
    """Go on with another model: a conversation, or where none is named, the caller's next ones.

    The model is loaded when it is first asked something.

    `curl http://127.0.0.1:8000/api/v1/chat/switch-model -d '{"model": "starter"}'`
    """
    body = await read_body(request, SwitchModelBody)
    refuse_unknown(body)
    owner = caller_of(request).owner
    known = (await service_of(request).show(_asked(request, body.model))).known
    if body.conversation_id is None:
        current_models_of(request).switch(owner, known.name)
    else:
        wanted = body.conversation_id
        await conversations_of(request).do(lambda store: store.set_model(owner, wanted, known.name))
    return json_response(
        {
            "model": known.name,
            "conversation_id": body.conversation_id,
            "loaded": known.loaded is not None,
        }
    )


@router.get("/chat/conversation/{conversation_id}")
async def show_conversation(request: Request, conversation_id: str) -> Response:
    """A conversation of the caller's with all its messages.

    `curl http://127.0.0.1:8000/api/v1/chat/conversation/CONVERSATION_ID`
    """
    owner = caller_of(request).owner
    found, messages = await conversations_of(request).do(
        lambda store: (store.get(owner, conversation_id), store.messages(owner, conversation_id))
    )
    return json_response({**conversation_object(found), "messages": list(map(message_object, messages))})


@router.delete("/chat/conversation/{conversation_id}")
async def delete_conversation(request: Request, conversation_id: str) -> Response:
    """Delete a conversation of the caller's, and every trace of it.

    `curl -X DELETE http://127.0.0.1:8000/api/v1/chat/conversation/CONVERSATION_ID`
    """
    owner = caller_of(request).owner
    await conversations_of(request).do(lambda store: store.delete(owner, conversation_id))
    return json_response({"conversation_id": conversation_id, "deleted": True})


@router.post("/generate", openapi_extra=json_body(PromptBody, text={"prompt": "Once upon", "max_tokens": 20}))
async def generate(request: Request) -> Response:
    """Continue a text as it is. Nothing is kept.

    `curl http://127.0.0.1:8000/api/v1/generate -d '{"prompt": "Once upon", "max_tokens": 20}'`
    """
    began = time.monotonic()
    body = await read_body(request, PromptBody)
    refuse_unknown(body)
    if not body.stream:
        return await until_gone(request, _text_answer(request, body, began))
    run = await until_gone(request, _begin_text(request, body, began))
    return sse(request, _Chunks(run), headers=run.headers)


@router.get("/health")
async def health(request: Request) -> Response:
    """Whether the current model could answer now, and if not, why.

    `curl http://127.0.0.1:8000/api/v1/health`
    """
    service = service_of(request)
    ready = service.readiness()
    return json_response(
        {
            "status": "healthy" if ready.ready else "loading",
            "reason": ready.reason,
            "model": service.config.model_id,
            "model_loaded": any(one.name == service.config.model_id for one in service.loaded()),
        }
    )


@router.get("/model-info")
async def model_info(request: Request, model: str | None = None) -> Response:
    """A model: what its files tell and, where it is loaded, how it runs. Without a name, the current one.

    `curl http://127.0.0.1:8000/api/v1/model-info`
    """
    current = current_models_of(request).of(caller_of(request).owner)
    known = (await service_of(request).show(_asked(request, model))).known
    in_memory = None if known.loaded is None else loaded_object(known.loaded)
    return json_response({**model_object(known, current), "in_memory": in_memory})


@router.post(
    "/load-model",
    dependencies=[Depends(admin_only)],
    openapi_extra=json_body(LoadModelBody, starter={"model": "starter"}),
)
async def load_model(request: Request) -> Response:
    """Bring a model into memory. Needs a key with the role admin, where there are keys.

    `curl http://127.0.0.1:8000/api/v1/load-model -d '{"model": "starter"}'`
    """
    body = await read_body(request, LoadModelBody)
    refuse_unknown(body)
    loaded = await until_gone(request, service_of(request).load(body.model, body.keep_alive_s))
    return json_response({"model": loaded.name, "loaded": True, **loaded_object(loaded)})


async def _begin_chat(request: Request, body: MessageBody, began: float) -> Run:
    caller = caller_of(request)
    stored = await _stored(request, body.conversation_id)
    model = body.model or (stored.model if stored is not None else None)
    native = chat_body(body, _asked(request, model), begins=stored is None or stored.num_messages == 0)
    keeper = await find_keeper(request, native)
    reply = await service_of(request).begin(chat_work(native, caller, keeper.before if keeper else ()))
    if keeper is not None:
        try:
            await keeper.begin(native, reply)
        except BaseException:
            await reply.aclose()
            raise
    return Run(reply, began, keeper)


def _asked(request: Request, model: str | None) -> str | None:
    """The name to ask the service for: None is its default, which may be no name that anybody else can say."""
    name = model or current_models_of(request).of(caller_of(request).owner)
    return None if name == service_of(request).config.model_id else name


async def _stored(request: Request, conversation_id: str | None) -> Conversation | None:
    if conversation_id is None:
        return None
    owner = caller_of(request).owner
    return await conversations_of(request).do(lambda store: store.get(owner, conversation_id))


async def _chat_answer(request: Request, body: MessageBody, began: float) -> Response:
    run = await _begin_chat(request, body, began)
    answer = await run.whole()
    return json_response(to_answer(answer, "response"), headers=run.headers)


async def _text_answer(request: Request, body: PromptBody, began: float) -> Response:
    run = await _begin_text(request, body, began)
    answer = await run.whole()
    return json_response(to_answer(answer, "generated_text"), headers=run.headers)


async def _begin_text(request: Request, body: PromptBody, began: float) -> Run:
    caller = caller_of(request)
    native = text_body(body, _asked(request, body.model))
    return Run(await service_of(request).begin(text_work(native, caller)), began)


class _Chunks:
    """A reply as the chunks of this dialect. `aclose` frees all of it, also before anything was read."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._text = ""

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> dict[str, Any]:
        async for event in self._run:
            chunk = to_chunk(event, self._text)
            if chunk is not None:
                self._text += chunk.get("delta", "")
                return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._run.aclose()
