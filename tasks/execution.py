"""One attempt at one task: through the gateway, and into the shape that its kind promises."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec

from core.config import CallerSpec
from core.errors import CallerError, GatewayError, InvalidRequest, NotAuthenticated, ProviderNonsense, ProviderPaused, ServerBusy
from gateway import prompting
from gateway.client import Llm, Reply, alias_of
from gateway.doors.http import Gateway
from gateway.functions import shaped
from gateway.router import AUTO, View, default_alias, route_for, targets_of
from tasks.added import AddedKind, kind_of
from tasks.kinds import Kind
from tasks.models import Task
from tasks.queue import Ending
from tasks.states import Status

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
# A change of the configuration has reached every process by then.
_HEARD_EVERYWHERE_S, _LOOK_AGAIN_S = 3.0, 0.1
_PERSON_SCOPES = frozenset({"chat"})


class Runner:
    """What every attempt needs; one per process."""

    def __init__(self, gateway: Gateway, wall: Callable[[], float], rng: random.Random) -> None:
        self._gateway = gateway
        self._wall = wall
        self._rng = rng

    async def run(self, task: Task) -> Ending:
        """Never raises but for cancellation: what went wrong is how the attempt ended."""
        request_id = ""
        try:
            kind = kind_of(task)
            llm = Llm(self._gateway, lambda view: caller_of(view, task), await self._model(task), task_type=task.kind)
            reply, result = await self._answer(llm, kind, task)
            request_id = reply.request_id
            return Ending(Status.COMPLETED, result=result, request_id=request_id)
        except GatewayError as error:
            return self._failed(task, error)
        except Exception as exc:
            return self._failed(task, GatewayError(f"The task failed in the gateway itself: {type(exc).__name__}.", detail=repr(exc)))

    async def _model(self, task: Task) -> str:
        """The name to ask for. Who submitted the task may have made its key, model or template a moment ago, and this process may not have
        heard of them yet: that is waited for. Raises GatewayError."""
        submitted_s = task.created_at.timestamp() if task.created_at else 0.0
        while True:
            view = self._gateway.live().manager.view
            try:
                caller = caller_of(view, task)
                if task.template is not None:
                    prompting.look_up(task.template, view, caller)
                return _alias(view, caller, task)
            except CallerError:
                if self._wall() - submitted_s > _HEARD_EVERYWHERE_S:
                    raise
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _answer(self, llm: Llm, kind: Kind | AddedKind, task: Task) -> tuple[Reply, dict[str, Any]]:
        messages = kind.messages(task.prompt, task.data)
        options = {**kind.wishes(task.data), **_options(task)}
        decoder = kind.decoder(task.data)
        if decoder is None:
            reply = await llm.chat(messages, **options)
            return reply, {"text": reply.text}
        try:
            reply, result = await shaped(llm, messages, decoder, kind.name, options)
        except InvalidRequest as refused:
            if "response_format" not in (refused.param or ""):
                raise
            # A vendor without such a wish gets the schema in its instructions alone.
            del options["response_format"]
            reply, result = await shaped(llm, messages, decoder, kind.name, options)
        return reply, kind.read(result)

    def _failed(self, task: Task, error: GatewayError) -> Ending:
        again_at = None
        lasting = not (error.retryable or isinstance(error, ServerBusy | ProviderNonsense) or error.http_status == 429)
        uncalled = self._may_wait(task, error)
        if uncalled or (not lasting and task.attempts < task.max_attempts):
            wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (task.attempts - 1))
            again_at = self._wall() + max(error.retry_after_s or 0.0, wait_s * self._rng.uniform(0.5, 1))
            if uncalled:  # one of all that wait is the breaker's trial: the others need not ask in the same moment
                again_at += self._rng.uniform(0, wait_s)
        code = error.code or ("invalid_request" if error.http_status == 400 else "server_error")
        return Ending(
            Status.FAILED,
            error_code=code,
            error_message=error.message,
            request_id=error.request_id,
            again_at=again_at,
            counted=not uncalled,
        )

    def _may_wait(self, task: Task, error: GatewayError) -> bool:
        """Whether no vendor was called, for the breakers of all are open, and the task has time: until its deadline, or without one as long
        as its attempts may take in all. Past a deadline the queue ends it."""
        if not isinstance(error, ProviderPaused) or task.created_at is None:
            return False
        until = task.deadline or task.created_at.timestamp() + task.max_attempts * task.timeout_s
        return self._wall() < until


def _options(task: Task) -> dict[str, Any]:
    """Of every chat call of this attempt."""
    template = {"prompt": task.template} if task.template is not None else {}
    # An answer that did not do may be the one that is kept.
    anew = {"cache": {"enabled": False}} if task.attempts > 1 else {}
    return {**task.options, **template, **anew, "timeout": task.timeout_s}


def caller_of(view: View, task: Task) -> CallerSpec:
    """Whose limits count. Raises NotAuthenticated where the key is gone, revoked or expired by now."""
    if task.key_id is None and task.user_id is None:
        raise NotAuthenticated("The API key that submitted this task no longer exists.")
    if task.key_id is None:
        return CallerSpec(f"user-{task.user_id}", "person", "", "", "", _PERSON_SCOPES)
    key_id = str(task.key_id)
    for caller in view.snapshot.callers.values():
        if caller.key_id == key_id:
            # The scope that let the task in is the one that counts.
            return msgspec.structs.replace(caller, scopes=caller.scopes | {"chat"}) if "tasks" in caller.scopes else caller
    raise NotAuthenticated("The API key that submitted this task was revoked or has expired.")


def _alias(view: View, caller: CallerSpec, task: Task) -> str:
    """What was asked for; else the route of the task's type, or the route or model that has its name; else the default chat model.

    Raises UnknownModel, NotPermitted, InvalidRequest.
    """
    if not task.model:
        return route_for(view, caller, task.kind) or default_alias(view, caller)
    alias = alias_of(view, caller, task.model)
    if alias != AUTO:
        targets_of(view, caller, alias)
    return alias
