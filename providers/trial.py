"""The checks of a connection test: what is asked of the vendor, and what its answer says about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from core.clock import Clock
from core.config import KeySpec, ModelSpec, ProviderSpec
from core.conversation import Conversation, JsonOutput, Message, Text, Tool, ToolChoice, ToolUse
from core.errors import (
    GatewayError,
    InvalidRequest,
    OutboundRefused,
    ProviderFault,
    ProviderLacksModel,
    ProviderLimited,
    ProviderRefused,
    ProviderRejectedOurKey,
    ProviderTimeout,
    ProviderUnreachable,
)
from core.events import Result
from core.secrets import Secret
from core.usage import Usage
from providers.calls import Calls
from providers.report import CHAT_CHECKS, EMBEDDING_CHECKS, CheckResult, ConnectionReport, in_plain_words, vendors_words

NO_SUCH_MODEL = "no-such-model-0000"
_FEW_TOKENS = 64
# Reasoning models think before they call a tool, and what they think counts.
_SOME_TOKENS = 512
_NEEDS = {"parallel_tools": "tools", "cancel": "stream"}
_NO_SUCH_ROUTE = (404, 405, 501)
_NO_ANSWER = (ProviderUnreachable, ProviderTimeout, OutboundRefused)
# These say how the vendor is doing, not what the model can do.
_PASSING = (ProviderLimited, ProviderFault, *_NO_ANSWER)

_WEATHER = Tool(
    "get_weather",
    "Tells the current weather in one city.",
    msgspec.Raw(b'{"type":"object","properties":{"city":{"type":"string","description":"The name of the city"}},"required":["city"]}'),
)
_PLACE = JsonOutput(
    msgspec.Raw(b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'),
    name="place",
    strict=True,
)

Outcome = tuple[CheckResult, str]
_decode_object = msgspec.json.Decoder(dict[str, object]).decode


class Trial:
    """One connection test under way: what is asked with, and the report it fills."""

    def __init__(self, spec: ProviderSpec, calls: Calls, report: ConnectionReport, clock: Clock) -> None:
        self._spec = spec
        self._calls = calls
        self._report = report
        self._clock = clock
        self._key: KeySpec | None = None
        self._model = ModelSpec("", "", "", spec.id)
        self._limited = True
        self._tool_mode = ToolChoice("required")
        self._counted: list[Usage | None] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The checks that this model calls for."""
        return EMBEDDING_CHECKS if self._model.model_type == "embedding" else CHAT_CHECKS

    async def run(self, models: Sequence[ModelSpec]) -> str:
        """Asks one of `models`, or the only one that the vendor lists. Returns why the checks that are missing were not tried."""
        usable, listed = await self._try_keys()
        if not usable:
            return "Not tried: the vendor did not answer." if self._report.found("list") else "Not tried: the vendor refused the key."
        model = _chosen(models, listed, self._spec.id)
        if model is None:
            self._report.add("chat", "not_offered", "No chat model is configured for this provider: sync its models, then test again.")
            return "Not tried: no model is configured."
        self._key, self._model, self._report.model = usable[0], model, model.model_id
        first = self.names[2]
        await self._try(first, self._embed if first == "embeddings" else self._chat)
        if not self._report.passed(first):
            return f"Not tried: {first} failed."
        for name in self.names[3:]:
            needed = self._report.found(_NEEDS.get(name, first))
            if needed is not None and needed.result != "pass":
                self._report.add(name, "not_offered", f"Not tried: {needed.name} did not pass.", judged=needed.judged)
            else:
                await self._try(name, getattr(self, f"_{name}"))
        return ""

    # Keys and the list ----------------------------------------------------------------------------------------------
    async def _try_keys(self) -> tuple[list[KeySpec | None], list[str]]:
        """The keys that the vendor did not refuse, and the models it listed."""
        keys: list[KeySpec | None] = [*self._spec.keys] or [None]
        usable: list[KeySpec | None] = []
        listed: list[str] = []
        for key in keys:
            name = self._auth(key)
            try:
                found = await self._list(key)
            except ProviderRejectedOurKey as error:
                self._report.add(name, "fail", self._words(error))
                continue
            except _NO_ANSWER as error:
                if not usable:
                    return [], []
                self._report.add(name, "fail", self._words(error))
                continue
            if found is not None:
                listed = found or listed
                self._report.add(name, "pass", _accepted(key))
            elif usable:
                self._report.add(name, "not_offered", "Not told: there was no list of models, and only one key is asked to chat.")
            usable.append(key)
        return usable, listed

    def _auth(self, key: KeySpec | None) -> str:
        """The name of the check of `key`, which is one of several or the only one."""
        return f"auth, key …{key.last4}" if key and len(self._spec.keys) > 1 else "auth"

    async def _list(self, key: KeySpec | None) -> list[str] | None:
        """The models, None where the vendor gave no list. Raises what makes the key or the whole vendor of no use."""
        self._report.under_way = "list"
        started_s = self._clock.monotonic()
        try:
            found = await self._calls.models(key.secret if key else None)
        except ProviderRejectedOurKey:
            raise
        except GatewayError as error:
            absent = isinstance(error, InvalidRequest) or getattr(error, "vendor_status", 0) in _NO_SUCH_ROUTE
            self._list_found(*("not_offered", "The vendor offers no list of models.") if absent else ("fail", self._words(error)))
            if isinstance(error, _NO_ANSWER):
                raise
            return None
        self._report.latency_ms = self._ms_since(started_s)
        self._list_found("pass", f"The vendor lists {len(found)} model{'' if len(found) == 1 else 's'}.")
        return found

    def _list_found(self, result: CheckResult, detail: str) -> None:
        """What the first key found; the list is the same for all."""
        if self._report.found("list") is None:
            self._report.add("list", result, detail)

    # One check after the other --------------------------------------------------------------------------------------
    async def _try(self, name: str, check: Callable[[], Awaitable[Outcome]]) -> None:
        self._report.under_way = name
        judged = True
        outcome: Outcome
        try:
            outcome = await check()
        except GatewayError as error:
            graded = name in ("tools", "parallel_tools", "json_schema")
            refused = isinstance(error, ProviderRefused) or type(error) is InvalidRequest
            outcome = "not_offered" if graded and refused else "fail", self._words(error)
            judged = not isinstance(error, _PASSING)
            self._judge_key(error)
        self._report.add(name, *outcome, judged=judged)

    def _judge_key(self, error: GatewayError) -> None:
        """Some vendors list their models to anybody: what they say to a real request counts."""
        if isinstance(error, ProviderRejectedOurKey):
            name = self._auth(self._key)
            self._report.checks = [check for check in self._report.checks if check.name != name]
            self._report.add(name, "fail", self._words(error))

    async def _chat(self) -> Outcome:
        started_s = self._clock.monotonic()
        try:
            answer = await self._ask("Say OK.")
        except ProviderRefused:
            self._limited = False  # the limit's name is the one thing in this request that servers disagree about
            answer = await self._ask("Say OK.")
        self._answered(started_s, answer.usage)
        return "pass", f"{self._model.model_id} answered."

    async def _embed(self) -> Outcome:
        started_s = self._clock.monotonic()
        self._answered(started_s, await self._calls.embed(self._model, self._secret, "OK"))
        return "pass", f"{self._model.model_id} gave a vector."

    def _answered(self, started_s: float, usage: Usage | None) -> None:
        self._report.latency_ms = self._ms_since(started_s)
        self._counted.append(usage)
        name = self._auth(self._key)
        if all(check.name != name for check in self._report.checks):
            self._report.add(name, "pass", _accepted(self._key))

    async def _stream(self) -> Outcome:
        answer, reads = await self._calls.stream(self._model, self._secret, self._asking("Say OK."))
        self._counted.append(answer.usage)
        return "pass", f"The streamed answer came in {reads} piece{'' if reads == 1 else 's'} and was whole."

    async def _usage(self) -> Outcome:
        wanted = ("the answer",) if self.names is EMBEDDING_CHECKS else ("the whole answer", "the streamed answer")
        counted = [usage for usage in self._counted if usage is not None]
        if len(counted) == len(wanted):
            return "pass", f"The vendor counted {counted[0].prompt_tokens} tokens in, {counted[0].completion_tokens} out."
        if len(self._counted) < len(wanted):
            return "not_offered", "Not told: the stream failed."
        missing = [name for name, usage in zip(wanted, self._counted, strict=True) if usage is None]
        return "fail", f"No token counts came with {' and '.join(missing)}; the gateway estimates them."

    async def _tools(self) -> Outcome:
        asked = "What is the weather in Paris? To find out, call tool get_weather."
        try:
            answer = await self._ask_for_calls(asked)
        except (ProviderRefused, InvalidRequest):
            self._tool_mode = ToolChoice("auto")
            answer = await self._ask_for_calls(asked)
        calls = _calls(answer)
        if not calls:
            return "fail", f"The model answered without calling the tool{_why(answer)}."
        if calls[0].name != _WEATHER.name or _object(calls[0].arguments) is None:
            return "fail", "The model called a tool that was not offered, or with arguments that are not a JSON object."
        return "pass", f"The model called the tool (tool_choice {self._tool_mode.mode})."

    async def _parallel_tools(self) -> Outcome:
        asked = (
            "What is the weather in Paris and in Tokyo? To find out, call tool get_weather twice in this one answer, once for each city."
        )
        answer = await self._ask_for_calls(asked)
        calls = _calls(answer)
        if not calls:
            return "fail", f"The model answered without calling the tool{_why(answer)}."
        if len(calls) == 1:
            return "not_offered", "Asked for two calls at once, the model made one."
        if any(_object(call.arguments) is None for call in calls) or len({call.id for call in calls}) < len(calls):
            return "fail", "The calls cannot be told apart, or have arguments that are not a JSON object."
        return "pass", f"The model made {len(calls)} calls at once."

    async def _json_schema(self) -> Outcome:
        asked = self._asking('Which city is the capital of France? Answer as JSON: {"city": "…"}.', _SOME_TOKENS)
        asked.json_output = _PLACE
        answer = await self._calls.chat(self._model, self._secret, asked)
        found = _object("".join(part.text for part in answer.parts if isinstance(part, Text)))
        if found is None:
            return "fail", f"The answer is not JSON{_why(answer)}."
        if not isinstance(found.get("city"), str):
            return "fail", "The answer is JSON, but does not follow the schema."
        return "pass", "The answer follows the schema."

    async def _cancel(self) -> Outcome:
        if await self._calls.cancel(self._model, self._secret, self._asking("Count from 1 to 50.", _SOME_TOKENS)):
            return "pass", "The answer was stopped after its first piece."
        return "not_offered", "Not told: the answer was over before it could be stopped."

    async def _error_shape(self) -> Outcome:
        stranger = msgspec.structs.replace(self._model, id="", alias=NO_SUCH_MODEL, model_id=NO_SUCH_MODEL)
        try:
            if self.names is EMBEDDING_CHECKS:
                await self._calls.embed(stranger, self._secret, "OK")
            else:
                await self._calls.chat(stranger, self._secret, self._asking("Say OK."))
        except (ProviderLacksModel, ProviderRefused) as error:
            return "pass", f"The vendor says no to a model that does not exist.{vendors_words(error)}"
        return "fail", "The vendor answers for a model that does not exist: it does not look at the model's name."

    # What is asked --------------------------------------------------------------------------------------------------
    @property
    def _secret(self) -> Secret | None:
        return self._key.secret if self._key else None

    def _asking(self, text: str, max_output_tokens: int = _FEW_TOKENS) -> Conversation:
        return Conversation([Message("user", [Text(text)])], max_output_tokens=max_output_tokens if self._limited else None)

    async def _ask(self, text: str) -> Result:
        return await self._calls.chat(self._model, self._secret, self._asking(text))

    async def _ask_for_calls(self, text: str) -> Result:
        asked = self._asking(text, _SOME_TOKENS)
        asked.tools, asked.tool_choice = [_WEATHER], self._tool_mode
        return await self._calls.chat(self._model, self._secret, asked)

    def _words(self, error: GatewayError) -> str:
        return in_plain_words(error, self._spec.base_url)

    def _ms_since(self, started_s: float) -> int:
        return round((self._clock.monotonic() - started_s) * 1000)


def _chosen(models: Sequence[ModelSpec], listed: list[str], provider_id: str) -> ModelSpec | None:
    """A configured model; else the only one there is. Of many unknown ones, which may be no chat models, none is guessed."""
    if models:
        return next((model for model in models if model.model_id in listed), models[0])
    return ModelSpec("", listed[0], listed[0], provider_id) if len(listed) == 1 else None


def _accepted(key: KeySpec | None) -> str:
    return "The vendor accepted the key." if key else "The vendor asks for no key."


def _calls(answer: Result) -> list[ToolUse]:
    return [part for part in answer.parts if isinstance(part, ToolUse)]


def _object(text: str) -> dict[str, object] | None:
    try:
        return _decode_object(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _why(answer: Result) -> str:
    return ", or was cut short before it did" if answer.ended.reason == "length" else ""
