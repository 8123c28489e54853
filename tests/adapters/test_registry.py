"""The list of vendors, and the vendor that lives in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from core.config import ProviderSpec
from core.errors import ConfigurationError, ProviderLacksModel
from core.outbound import Guard, GuardedTransport
from providers.adapters import registry
from providers.adapters.base import FormField
from providers.adapters.openai_compatible import OpenAICompatible
from tests.adapters.cast import SECRET, Heard, model, provider, request

KINDS = [kind for kind, _ in registry.kinds()]
CUSTOM_PATHS = {
    "providers.adapters.openai_compatible:OpenAICompatible",
    "no.such.module:Thing",
    "json:nothing",
    "json:loads",
    "json:JSONDecoder",
}


@pytest.fixture(autouse=True)
def custom_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_custom_allowed", CUSTOM_PATHS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_label_a_form_and_an_adapter(kind: str) -> None:
    assert dict(registry.kinds())[kind]
    fields = registry.form(kind)
    assert len({field.name for field in fields}) == len(fields)
    path = "providers.adapters.openai_compatible:OpenAICompatible"
    options = {"adapter": path} if kind == registry.CUSTOM else {}
    assert isinstance(registry.adapter_for(provider(kind, options=options)).dialects, frozenset)


def test_an_empty_base_url_is_the_vendors_own() -> None:
    assert registry.adapter_for(provider("openai", "")).models_call(None).url == "https://api.openai.com/v1/models"
    assert registry.adapter_for(provider("ollama", "")).models_call(None).url == "http://127.0.0.1:11434/v1/models"
    assert registry.adapter_for(provider("ollama", "http://box:1/v1/")).models_call(None).url == "http://box:1/v1/models"


def test_a_key_is_asked_for_where_the_vendor_wants_one() -> None:
    required = {kind: any(field.required for field in registry.form(kind) if field.secret) for kind in KINDS}
    free = {"openai_compatible", "vllm", "llamacpp", "ollama", "localai", "custom", "echo"}
    assert {kind for kind, wanted in required.items() if not wanted} == free
    assert registry.form("echo") == ()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (provider("nonesuch"), "'nonesuch' is no provider type"),
        (provider("openai_compatible", ""), "needs a base URL"),
        (provider("custom"), "cannot be imported"),
        (provider("custom", options={"adapter": "no.such.module:Thing"}), "cannot be imported"),
        (provider("custom", options={"adapter": "json:nothing"}), "cannot be imported"),
        (provider("custom", options={"adapter": "json:loads"}), "is no adapter class"),
        (provider("custom", options={"adapter": "json:JSONDecoder"}), "is no adapter class"),
    ],
)
def test_a_provider_that_cannot_work_is_named(spec: ProviderSpec, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        registry.adapter_for(spec)
    assert "provider 'main'" in str(caught.value)


@pytest.mark.parametrize("kind", registry.COMPATIBLE_VENDORS)
def test_a_row_is_data_alone(kind: str) -> None:
    row = registry.COMPATIBLE_VENDORS[kind]
    adapter = registry.adapter_for(provider(kind))
    assert type(adapter) is OpenAICompatible
    assert adapter.quirks == row.quirks
    declared = {field.name for field in registry.form(kind)}
    assert {option for option, _ in adapter.quirks.option_headers} == declared - {"api_key", "base_url"}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (FormField("a", "A"), "text", ""),
        (FormField("a", "A"), 7, "one line of text"),
        (FormField("a", "A"), "two\nlines", "one line of text"),
        (FormField("a", "A", choices=(("x", "X"), ("y", "Y"))), "x", ""),
        (FormField("a", "A", choices=(("x", "X"), ("y", "Y"))), "", ""),
        (FormField("a", "A", choices=(("x", "X"), ("y", "Y"))), ["x"], "Choose one of x, y."),
        (FormField("a", "A", mapping=True), {"m": "d"}, ""),
        (FormField("a", "A", mapping=True), {}, ""),
        (FormField("a", "A", mapping=True), {"m": ""}, "object of names"),
        (FormField("a", "A", mapping=True), [["m", "d"]], "object of names"),
    ],
)
def test_a_declaration_judges_a_value(field: FormField, value: object, words: str) -> None:
    assert words in field.refusal(value)
    assert bool(words) == bool(field.refusal(value))


def test_a_custom_adapter_is_a_class_by_its_path() -> None:
    spec = provider("custom", options={"adapter": "providers.adapters.openai_compatible:OpenAICompatible"})
    assert type(registry.adapter_for(spec)) is OpenAICompatible


def test_the_registry_imports_no_vendor_and_no_django() -> None:
    code = "import sys, providers.adapters.registry; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    ours = {name for name in shown.stdout.split() if name.startswith(("providers.adapters.", "django"))}
    assert ours == {"providers.adapters.base", "providers.adapters.quirks", "providers.adapters.registry"}


async def echo(body: dict[str, Any], model_id: str = "echo-1") -> Any:
    adapter = registry.adapter_for(provider("echo", ""))
    transport = GuardedTransport(Guard())
    response = await adapter.send(transport, adapter.chat_call(request(body), model(model_id), SECRET))
    return adapter, response


ASKED = {
    "model": "alias",
    "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "good day"}]}],
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


async def test_echo_answers_what_it_was_told() -> None:
    adapter, response = await echo(ASKED)
    body = await response.read(2**16)
    answer = adapter.read_answer(body, request(ASKED))
    assert answer.body is body
    assert json.loads(body)["choices"][0]["message"]["content"] == "echo: good day"
    assert (answer.usage.input, answer.usage.output, answer.finish_reason) == (4, 3, "stop")
    assert body == await (await echo(ASKED))[1].read(2**16)


@pytest.mark.parametrize("wants_usage", [True, False])
async def test_echo_streams_word_by_word(wants_usage: bool) -> None:
    body = {**ASKED, "stream": True, "stream_options": {"include_usage": wants_usage}}
    adapter, response = await echo(body)
    reader, forwarded = adapter.stream_reader(request(body)), b""
    while data := await response.next_chunk():
        forwarded += reader.feed(data)
    reader.finish()
    heard = Heard(forwarded)
    assert heard.text == "echo: good day"
    assert [chunk["choices"][0]["delta"] for chunk in heard.chunks[1:4]] == [
        {"content": "echo:"},
        {"content": " good"},
        {"content": " day"},
    ]
    assert bool(heard.usage) == wants_usage
    assert (reader.usage.input, reader.usage.output) == (4, 3)
    assert reader.done


async def test_echo_calls_a_tool_when_told_to() -> None:
    body = {"model": "a", "tools": TOOLS, "messages": [{"role": "user", "content": "please call tool"}]}
    adapter, response = await echo(body)
    answer = json.loads(adapter.read_answer(await response.read(2**16), request(body)).body)
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": "{}"}
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    _, response = await echo({**body, "stream": True})
    assert list(Heard(await response.read(2**16)).tools.values())[0]["name"] == "weather"  # noqa: RUF015


async def test_echo_knows_its_models_only() -> None:
    adapter, response = await echo(ASKED, "gpt-9")
    assert response.status == 404
    assert isinstance(adapter.read_error(404, response.headers, await response.read(2**16)), ProviderLacksModel)
    listed = await adapter.send(GuardedTransport(Guard()), adapter.models_call(None))
    assert adapter.read_models(await listed.read(2**16)) == ["echo-1"]
