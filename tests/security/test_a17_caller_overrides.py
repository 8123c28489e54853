"""A17, A20: nothing that a caller sends turns a request to another address or another credential, nor makes the gateway fetch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import unique
from tests.security.house import House

pytestmark = pytest.mark.process
CREDENTIAL = "sk-the-configured-credential"


@pytest.fixture(scope="module")
def model(_house: House) -> str:
    return _house.model("ok@tokens=2", api_key=CREDENTIAL)


def addresses(house: House) -> tuple[str, str]:
    return f"http://127.0.0.1:{house.canary.port}/v1", "sk-of-the-caller"


FIELDS = [
    "api_base",
    "base_url",
    "api_key",
    "api_version",
    "organization",
    "extra_headers",
    "extra_body",
    "extra_query",
    "custom_llm_provider",
    "model_list",
    "fallbacks",
    "user_config",
    "litellm_params",
    "litellm_metadata",
    "proxy",
    "proxies",
    "endpoint",
    "aws_bedrock_runtime_endpoint",
    "webhook",
    "callback_url",
    "provider",
]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_turns_nothing(house: House, model: str, field: str) -> None:
    there, key = addresses(house)
    for value in (there, {"api_base": there, "base_url": there, "api_key": key, "Authorization": f"Bearer {key}"}, [{"api_base": there}]):
        _unturned(house, model, body={field: value})


@pytest.mark.parametrize("inside", ["llm_override", "user_config", "api_base", "provider"])
def test_metadata_turns_nothing(house: House, model: str, inside: str) -> None:
    there, key = addresses(house)
    _unturned(house, model, body={"metadata": {inside: {"api_base": there, "base_url": there, "api_key": key}}})


@pytest.mark.parametrize(
    "name",
    [
        "x-portkey-custom-host",
        "x-portkey-config",
        "x-portkey-provider",
        "x-litellm-api-base",
        "x-llm-base-url",
        "x-llm-provider",
        "helicone-target-url",
        "helicone-openai-api-base",
        "openai-organization",
        "openai-base-url",
        "x-forwarded-host",
        "x-original-url",
        "x-rewrite-url",
        "forwarded",
        "proxy",
        "proxy-authorization",
        "x-target-url",
        "host",
    ],
)
def test_a_header_turns_nothing(house: House, model: str, name: str) -> None:
    there, _ = addresses(house)
    value = there.removeprefix("http://").removesuffix("/v1") if name in ("host", "x-forwarded-host") else there
    _unturned(house, model, headers={name: value})


def _unturned(house: House, model: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> None:
    """The vendor that is configured answers, and gets the credential that is configured; or the caller is refused. The fixture
    `house` looks at the canary."""
    prompt = unique("override")
    sent = {"model": model, "messages": wire.asking(prompt), **(body or {})}
    answer = wire.call(house.live.base_url, "POST", "/v1/chat/completions", key=house.key, body=sent, headers=headers)
    assert answer.status in (200, 400)
    assert [call["key"] for call in house.vendor.calls(prompt)] == ([CREDENTIAL] if answer.status == 200 else [])


# A20 ------------------------------------------------------------------------------------------------------------------


def _parts(address: str) -> list[dict[str, Any]]:
    return [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "image_url", "image_url": {"url": address.replace("http://", "https://")}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "file", "file": {"file_url": address}},
        {"type": "file", "file": {"file_data": address}},
        {"type": "input_audio", "input_audio": {"data": address, "format": "wav"}},
        {"type": "video_url", "video_url": {"url": address}},
        {"type": "image", "source": {"type": "url", "url": address}},
        {"type": "input_image", "image_url": address},
        {"type": "input_file", "file_url": address},
    ]


@pytest.mark.parametrize("number", range(10))
def test_what_a_prompt_names_is_not_fetched_for_a_vendor_of_the_same_wire(house: House, model: str, number: int) -> None:
    part = _parts(f"http://127.0.0.1:{house.canary.port}/secret.png")[number]
    answer = house.ask(model, [{"type": "text", "text": unique("fetch")}, part])  # type: ignore[arg-type]
    assert answer.status in (200, 400)


@pytest.mark.parametrize("kind", ["anthropic", "gemini", "dashscope"])
@pytest.mark.parametrize("number", range(10))
def test_nor_for_one_of_another_wire(house: House, kind: str, number: int) -> None:
    """Translating a picture may tempt to fetch it. The vendor may be called (and answers 404: it speaks OpenAI's wire), the canary not."""
    alias = f"fetch-{kind}"
    if alias not in house.control.models():
        provider = house.control.provider(house.vendor.base_url, kind=kind, api_key="sk-vendor-of-another-wire")
        house.control.model(provider, "m", alias=alias)
        house.control.apply()
    part = _parts(f"http://127.0.0.1:{house.canary.port}/secret.png")[number]
    answer = house.ask(alias, [{"type": "text", "text": "look"}, part])  # type: ignore[arg-type]
    assert answer.status in (400, 404, 502, 503)


def _said(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*content]}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"max_tokens": 5, "messages": _said({"type": "image", "source": {"type": "url", "url": "URL"}})}),
        ("/v1/messages", {"max_tokens": 5, "messages": _said({"type": "document", "source": {"type": "url", "url": "URL"}})}),
        ("/v1/messages", {"max_tokens": 5, "messages": wire.HELLO, "mcp_servers": [{"type": "url", "url": "URL", "name": "m"}]}),
        ("/v1/responses", {"input": _said({"type": "input_image", "image_url": "URL"})}),
        ("/v1/responses", {"input": _said({"type": "input_file", "file_url": "URL"})}),
        ("/v1/responses", {"input": "hi", "tools": [{"type": "mcp", "server_label": "m", "server_url": "URL"}]}),
    ],
)
def test_nor_through_another_door(house: House, model: str, path: str, body: dict[str, Any]) -> None:
    address = f"http://127.0.0.1:{house.canary.port}/secret.png"
    sent = json.dumps({"model": model, **body}).replace("URL", address).encode()
    answer = wire.call(house.live.base_url, "POST", path, key=house.key, body=sent)
    assert answer.status in (200, 400)
