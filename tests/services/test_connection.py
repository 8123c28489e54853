"""The connection test: what it asks, and what it says in plain words."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import ProviderNonsense, ProviderRejectedOurKey
from models_registry.models import LLMModel
from providers import services
from providers.connection import ConnectionReport
from providers.models import Provider
from tests.services.vendor import CHAT, Vendor, vendor

KEY = "sk-vendor-key-0123456789abcdef"
OTHER = "sk-vendor-key-fedcba9876543210"
pytestmark = pytest.mark.django_db


@pytest.fixture
def stub(settings: Any) -> Iterator[Vendor]:
    settings.OUTBOUND_ALLOW = [("127.0.0.0/8", None)]
    with vendor() as running:
        yield running


def provider_at(base_url: str, *secrets: str) -> Provider:
    return services.create_provider(name="p", provider_type="openai_compatible", base_url=base_url, secrets=secrets)


def with_model(provider: Provider, *model_ids: str) -> Provider:
    for model_id in model_ids:
        LLMModel.objects.create(provider=provider, model_id=model_id, alias=model_id)
    return provider


def results(report: ConnectionReport) -> dict[str, str]:
    return {check.name: check.result for check in report.checks}


def test_echo_answers() -> None:
    report = services.test_connection(services.create_provider(name="echo", provider_type="echo"))
    assert report.ok
    assert results(report) == {"models": "pass", "chat": "pass"}
    assert report.tokens_used > 0


def test_a_good_vendor_passes_and_is_asked_for_little(stub: Vendor) -> None:
    report = services.test_connection(with_model(provider_at(stub.base_url, KEY), "small"))
    assert report.ok
    assert results(report) == {"models": "pass", "chat": "pass"}
    assert report.checks[0].detail == "The vendor lists 2 models."
    assert report.tokens_used == 11
    assert [(path, key) for path, key, _ in stub.asked] == [("/v1/models", KEY), ("/v1/chat/completions", KEY)]
    body = stub.asked[1][2]
    assert (body["model"], body["max_tokens"]) == ("small", 16)


def test_a_configured_model_that_the_vendor_lists_is_preferred(stub: Vendor) -> None:
    services.test_connection(with_model(provider_at(stub.base_url), "gone", "large"))
    assert stub.asked[1][2]["model"] == "large"


def test_no_model_is_guessed_among_several(stub: Vendor) -> None:
    report = services.test_connection(provider_at(stub.base_url))
    assert report.ok
    assert results(report) == {"models": "pass", "chat": "not_offered"}


def test_the_newer_name_of_the_token_limit_is_tried(stub: Vendor) -> None:
    refusal = {"error": {"message": "Unsupported parameter: 'max_tokens'", "code": "unsupported_parameter", "param": "max_tokens"}}
    stub.answers["/v1/chat/completions"] = (0, lambda body: (400, refusal) if "max_tokens" in body else (200, CHAT))
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert results(report) == {"models": "pass", "chat": "pass"}


def test_a_refused_key_is_named_by_its_last_four(stub: Vendor) -> None:
    stub.good_keys = {OTHER}
    report = services.test_connection(with_model(provider_at(stub.base_url, KEY, OTHER), "small"))
    assert not report.ok
    assert results(report) == {"models, key …cdef": "fail", "models, key …3210": "pass", "chat": "pass"}
    assert report.checks[0].detail == "The vendor refused the key (401)."
    assert KEY not in str(report)


def test_with_only_a_refused_key_no_chat_is_tried(stub: Vendor) -> None:
    stub.good_keys = set()
    report = services.test_connection(with_model(provider_at(stub.base_url, KEY), "small"))
    assert results(report) == {"models": "fail"}
    assert len(stub.asked) == 1


def test_a_vendor_without_a_list_is_still_asked_to_chat(stub: Vendor) -> None:
    stub.answers["/v1/models"] = (404, {"error": {"message": "no such route"}})
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert report.ok
    assert results(report) == {"models": "not_offered", "chat": "pass"}


@pytest.mark.parametrize(
    ("status", "answer"), [(200, b"<html>welcome</html>"), (200, b'{"choices": ['), (200, {"choices": []}), (500, b"oops"), (429, {})]
)
def test_whatever_is_no_answer_fails_in_a_sentence(stub: Vendor, status: int, answer: object) -> None:
    stub.answers["/v1/chat/completions"] = (status, answer)
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert results(report) == {"models": "pass", "chat": "fail"}
    assert report.checks[1].detail.startswith("small: ")


def test_a_closed_port_says_that_nothing_listens_there(settings: Any) -> None:
    settings.OUTBOUND_ALLOW = [("127.0.0.0/8", None)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    report = services.test_connection(with_model(provider_at(f"http://127.0.0.1:{port}/v1"), "small"))
    assert not report.ok
    assert [check.detail for check in report.checks] == [f"Nothing listens at http://127.0.0.1:{port}/v1."]


def test_a_private_address_is_refused_with_what_to_do(settings: Any) -> None:
    settings.OUTBOUND_ALLOW = []
    report = services.test_connection(provider_at("http://10.0.0.1/v1"))
    assert not report.ok
    assert "10.0.0.1/32:80" in report.checks[0].detail
    assert "OUTBOUND_ALLOW" in report.checks[0].detail


def test_a_needed_key_that_is_missing_is_said_before_any_call() -> None:
    report = services.test_connection(services.create_provider(name="p", provider_type="openai"))
    assert results(report) == {"key": "fail"}


def test_an_adapter_that_cannot_be_imported_is_said() -> None:
    options = {"adapter": "no.such.module:Adapter"}
    provider = services.create_provider(name="p", provider_type="custom", base_url="https://vendor.example", options=options)
    report = services.test_connection(provider)
    assert results(report) == {"adapter": "fail"}
    assert "no.such.module" in report.checks[0].detail


def test_listing_passes_over_a_refused_key(stub: Vendor) -> None:
    stub.good_keys = {OTHER}
    assert services.list_vendor_models(provider_at(stub.base_url, KEY, OTHER)) == ["large", "small"]


def test_listing_fails_when_every_key_is_refused(stub: Vendor) -> None:
    stub.good_keys = set()
    with pytest.raises(ProviderRejectedOurKey):
        services.list_vendor_models(provider_at(stub.base_url, KEY, OTHER))


def test_listing_what_is_no_list_fails(stub: Vendor) -> None:
    stub.answers["/v1/models"] = (200, b"<html>")
    with pytest.raises(ProviderNonsense):
        services.list_vendor_models(provider_at(stub.base_url))
