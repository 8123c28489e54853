"""The connection test: what it asks, and what it says in plain words."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from core.errors import ProviderNonsense, ProviderRejectedOurKey
from models_registry.models import LLMModel
from providers import connection, services
from providers.adapters import registry
from providers.models import Provider
from providers.report import CHAT_CHECKS, EMBEDDING_CHECKS, ConnectionReport
from tests.services.vendor import MODELS, Vendor, chat, said, streamed, vendor

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


ALL_PASS = dict.fromkeys(CHAT_CHECKS, "pass")
CHAT_PATH = "/v1/chat/completions"


def failed(report: ConnectionReport) -> dict[str, str]:
    """What did not pass."""
    return {name: result for name, result in results(report).items() if result != "pass"}


def detail(report: ConnectionReport, name: str) -> str:
    return next(check.detail for check in report.checks if check.name == name)


def wherever(stub: Vendor, condition: Callable[[dict[str, Any]], bool], answer: tuple[int, Any]) -> None:
    """The vendor says `answer` to such requests, and behaves itself otherwise."""
    stub.answers[CHAT_PATH] = (0, lambda body: answer if condition(body) else chat(body))


def test_echo_gets_a_graded_report() -> None:
    report = services.test_connection(services.create_provider(name="echo", provider_type="echo"))
    assert report.ok
    assert failed(report) == {"parallel_tools": "not_offered", "json_schema": "fail"}
    assert (report.model, report.tokens_used > 0) == ("echo-1", True)


def test_a_vendor_that_can_do_everything_passes_everything_in_order(stub: Vendor) -> None:
    report = services.test_connection(with_model(provider_at(stub.base_url, KEY), "small"))
    assert (report.ok, report.model) == (True, "small")
    assert list(results(report).items()) == list(ALL_PASS.items())
    assert detail(report, "list") == "The vendor lists 2 models."
    assert {key for _, key, _ in stub.asked} == {KEY}
    bodies = [body for path, _, body in stub.asked if path == CHAT_PATH]
    assert (bodies[0]["model"], bodies[0]["max_tokens"]) == ("small", 64)
    assert all(0 < body["max_tokens"] <= 512 for body in bodies)
    assert len(bodies) == 7
    assert stub.hung_up.wait(5), "the vendor was still writing the answer that had been cancelled"
    # Five answers of 11 tokens that the vendor counted, and an estimate for the one that was cancelled.
    assert report.tokens_used > 5 * 11


def test_what_was_found_is_written_down_at_every_row_of_the_model(stub: Vendor) -> None:
    provider = with_model(provider_at(stub.base_url), "small", "large")
    LLMModel.objects.create(provider=provider, model_id="small", alias="tiny", capabilities=["images", "tools"])
    services.test_connection(provider, "small")
    rows = LLMModel.objects.filter(model_id="small").order_by("alias")
    assert [row.tested for row in rows] == [ALL_PASS, ALL_PASS]
    assert [row.capabilities for row in rows] == [
        ["stream", "tools", "parallel_tools", "json_schema"],
        ["images", "tools", "stream", "parallel_tools", "json_schema"],
    ]
    assert all(row.tested_at for row in rows)
    large = LLMModel.objects.get(model_id="large")
    assert (large.tested, large.tested_at, large.capabilities) == ({}, None, [])


def test_what_the_model_turns_out_not_to_have_goes_and_an_admins_words_stay(stub: Vendor) -> None:
    provider = with_model(provider_at(stub.base_url), "small")
    LLMModel.objects.update(capabilities=["json_schema", "tools", "images"])
    wherever(stub, lambda body: "tools" in body, (200, said("It rains.")))
    report = services.test_connection(provider)
    assert failed(report) == {"tools": "fail", "parallel_tools": "not_offered"}
    assert report.ok
    assert LLMModel.objects.get().capabilities == ["json_schema", "images", "stream"]


def test_a_bad_day_of_the_vendor_takes_no_capability_away(stub: Vendor) -> None:
    provider = with_model(provider_at(stub.base_url), "small")
    LLMModel.objects.update(capabilities=["tools", "parallel_tools", "json_schema"])
    wherever(stub, lambda body: "tools" in body or "response_format" in body, (503, {"error": {"message": "Overloaded, sorry."}}))
    report = services.test_connection(provider)
    assert failed(report) == {"tools": "fail", "parallel_tools": "not_offered", "json_schema": "fail"}
    assert detail(report, "tools").endswith('It said: "Overloaded, sorry."')
    assert set(LLMModel.objects.get().capabilities) == {"tools", "parallel_tools", "json_schema", "stream"}


def test_a_parameter_that_is_refused_by_name_is_not_offered_with_the_vendors_words(stub: Vendor) -> None:
    refusal = {"error": {"message": "response_format json_schema is unavailable now", "type": "invalid_request_error"}}
    wherever(stub, lambda body: "response_format" in body, (400, refusal))
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert failed(report) == {"json_schema": "not_offered"}
    assert "response_format json_schema is unavailable now" in detail(report, "json_schema")


def test_a_vendor_that_forces_no_tool_is_left_the_choice(stub: Vendor) -> None:
    refusal = {"error": {"message": "tool_choice 'required' is not supported", "type": "invalid_request_error"}}
    wherever(stub, lambda body: body.get("tool_choice") == "required", (400, refusal))
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert failed(report) == {}
    assert "auto" in detail(report, "tools")


@pytest.mark.parametrize(
    ("calls", "result"),
    [((), "fail"), (('{"city":"Paris"}',), "not_offered"), (('{"city":"Paris"}', "not json"), "fail")],
)
def test_parallel_calls_are_counted(stub: Vendor, calls: tuple[str, ...], result: str) -> None:
    wherever(stub, lambda body: "Tokyo" in str(body["messages"]), (200, said(None if calls else "No.", calls)))
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert failed(report) == {"parallel_tools": result}


@pytest.mark.parametrize("answer", ["Paris", '{"town":"Paris"}', '["Paris"]', '```json\n{"city":"Paris"}\n```'])
def test_an_answer_that_does_not_follow_the_schema_fails(stub: Vendor, answer: str) -> None:
    wherever(stub, lambda body: "response_format" in body, (200, said(answer)))
    assert failed(services.test_connection(with_model(provider_at(stub.base_url), "small"))) == {"json_schema": "fail"}


def test_a_call_with_broken_arguments_fails(stub: Vendor) -> None:
    wherever(stub, lambda body: "tools" in body, (200, said(None, ('{"city":',))))
    assert results(services.test_connection(with_model(provider_at(stub.base_url), "small")))["tools"] == "fail"


def test_a_stream_that_breaks_off_fails_and_what_needs_it_is_not_tried(stub: Vendor) -> None:
    wherever(stub, lambda body: bool(body.get("stream")), (200, streamed("O", "K")[:150]))
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert failed(report) == {"stream": "fail", "usage": "not_offered", "cancel": "not_offered"}
    assert not report.ok


def test_a_stream_without_counts_fails_usage_alone(stub: Vendor) -> None:
    wherever(stub, lambda body: body.get("stream") and "OK" in str(body), (200, streamed("O", "K", usage=None)))
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert (report.ok, failed(report)) == (True, {"usage": "fail"})
    assert "streamed answer" in detail(report, "usage")


def test_an_answer_that_is_over_at_once_cannot_be_cancelled(stub: Vendor) -> None:
    wherever(stub, lambda body: "Count" in str(body["messages"]), (200, streamed()))
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert report.ok
    assert failed(report) == {"cancel": "not_offered"}


def test_a_server_that_does_not_look_at_the_models_name_is_told_on(stub: Vendor) -> None:
    stub.answers[CHAT_PATH] = (0, lambda body: chat({**body, "model": "small"}))
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert (report.ok, failed(report)) == (True, {"error_shape": "fail"})


def test_an_embedding_model_is_asked_for_a_vector(stub: Vendor) -> None:
    provider = provider_at(stub.base_url)
    LLMModel.objects.create(provider=provider, model_id="embedder", alias="embedder", model_type="embedding")
    report = services.test_connection(provider)
    assert results(report) == dict.fromkeys(EMBEDDING_CHECKS, "pass")
    assert (report.ok, report.tokens_used) == (True, 2)
    assert LLMModel.objects.get().capabilities == []


def messages(body: dict[str, Any]) -> tuple[int, Any]:
    """The same abilities on Anthropic's wire."""
    if body["model"] != "small":
        return 404, {"type": "error", "error": {"type": "not_found_error", "message": f"model: {body['model']}"}}
    usage = {"input_tokens": 9, "output_tokens": 2}
    begun = {"id": "msg_1", "type": "message", "role": "assistant", "model": "small", "content": [], "stop_reason": None, "usage": usage}
    if body.get("stream"):
        text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "OK"}}
        opening = [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        ]
        closing: list[dict[str, Any]] = [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ]
        if "Count" in str(body["messages"]):
            return 200, itertools.chain(map(as_event, opening), itertools.repeat(as_event(text), 1_000_000))
        return 200, b"".join(map(as_event, [*opening, text, *closing]))
    cities = ("Paris", "Tokyo") if "Tokyo" in str(body["messages"]) else ("Paris",)
    calls = [{"type": "tool_use", "id": f"toolu_{city}", "name": "get_weather", "input": {"city": city}} for city in cities]
    said = [{"type": "text", "text": '{"city":"Paris"}' if "output_config" in body else "OK"}]
    ended = {"content": calls, "stop_reason": "tool_use"} if "tools" in body else {"content": said, "stop_reason": "end_turn"}
    return 200, {**begun, **ended}


def as_event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def test_another_wire_is_graded_by_the_same_questions(stub: Vendor) -> None:
    stub.answers |= {"/v1/messages": (0, messages), "/v1/models?limit=1000": stub.answers["/v1/models"]}
    address = stub.base_url.removesuffix("/v1")
    provider = services.create_provider(name="p", provider_type="anthropic", base_url=address, secrets=[KEY])
    report = services.test_connection(with_model(provider, "small"))
    assert failed(report) == {}, report.checks
    assert stub.hung_up.wait(5), "the vendor was still writing the answer that had been cancelled"


def test_a_configured_model_that_the_vendor_lists_is_preferred(stub: Vendor) -> None:
    assert services.test_connection(with_model(provider_at(stub.base_url), "gone", "large")).model == "large"


@pytest.mark.parametrize("name", ["big", "large"])
def test_a_model_is_chosen_by_alias_or_by_the_vendors_name(stub: Vendor, name: str) -> None:
    provider = with_model(provider_at(stub.base_url), "small")
    LLMModel.objects.create(provider=provider, model_id="large", alias="big", is_active=False)
    assert services.test_connection(provider, name).model == "large"


def test_a_model_that_is_no_row_yet_can_be_tried(stub: Vendor) -> None:
    provider = with_model(provider_at(stub.base_url), "small")
    assert services.test_connection(provider, "large").ok
    assert LLMModel.objects.get().tested == {}


def test_a_model_for_pictures_is_refused(stub: Vendor) -> None:
    provider = provider_at(stub.base_url)
    LLMModel.objects.create(provider=provider, model_id="painter", alias="painter", model_type="image")
    with pytest.raises(ValidationError) as refused:
        services.test_connection(provider, "painter")
    assert list(refused.value.error_dict) == ["model"]
    assert stub.asked == []


def test_no_model_is_guessed_among_several(stub: Vendor) -> None:
    report = services.test_connection(provider_at(stub.base_url))
    assert report.ok
    assert failed(report) == dict.fromkeys(CHAT_CHECKS[2:], "not_offered")
    assert (report.model, report.tokens_used) == ("", 0)


def test_a_server_that_knows_the_limit_by_another_name_is_asked_without_one(stub: Vendor) -> None:
    refusal = {"error": {"message": "Unsupported parameter: 'max_tokens'", "code": "unsupported_parameter", "param": "max_tokens"}}
    wherever(stub, lambda body: "max_tokens" in body, (400, refusal))
    assert failed(services.test_connection(with_model(provider_at(stub.base_url), "small"))) == {}


def test_a_refused_key_is_named_by_its_last_four(stub: Vendor) -> None:
    stub.good_keys = {OTHER}
    report = services.test_connection(with_model(provider_at(stub.base_url, KEY, OTHER), "small"))
    assert not report.ok
    assert failed(report) == {"auth, key …cdef": "fail"}
    assert results(report)["auth, key …3210"] == "pass"
    assert detail(report, "auth, key …cdef") == 'The vendor refused the key (401). It said: "Incorrect API key provided: ****"'
    assert KEY not in str(report)
    assert LLMModel.objects.get().tested["auth"] == "fail"


def test_with_only_a_refused_key_no_chat_is_tried(stub: Vendor) -> None:
    stub.good_keys = set()
    report = services.test_connection(with_model(provider_at(stub.base_url, KEY), "small"))
    assert results(report) == {"auth": "fail", **dict.fromkeys(CHAT_CHECKS[1:], "not_offered")}
    assert not report.ok
    assert len(stub.asked) == 1
    assert LLMModel.objects.get().tested == {}


def test_a_list_that_anybody_may_read_does_not_vouch_for_the_key(stub: Vendor) -> None:
    stub.answers[CHAT_PATH] = (401, {"error": {"message": "User not found.", "code": 401}})
    report = services.test_connection(with_model(provider_at(stub.base_url, KEY), "small"))
    assert (results(report)["auth"], results(report)["list"], results(report)["chat"]) == ("fail", "pass", "fail")


def test_a_vendor_without_a_list_is_still_asked_to_chat(stub: Vendor) -> None:
    stub.answers["/v1/models"] = (404, {"error": {"message": "no such route"}})
    report = services.test_connection(with_model(provider_at(stub.base_url, KEY, OTHER), "small"))
    assert report.ok
    assert failed(report) == {"list": "not_offered", "auth, key …3210": "not_offered"}


@pytest.mark.parametrize(
    ("status", "answer"), [(200, b"<html>welcome</html>"), (200, b'{"choices": ['), (200, {"choices": []}), (500, b"oops"), (429, {})]
)
def test_whatever_is_no_answer_fails_in_a_sentence(stub: Vendor, status: int, answer: object) -> None:
    stub.answers[CHAT_PATH] = (status, answer)
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    assert failed(report) == {"chat": "fail", **dict.fromkeys(CHAT_CHECKS[3:], "not_offered")}
    assert not report.ok
    assert detail(report, "chat").endswith((".", ")", '"'))
    assert LLMModel.objects.get().capabilities == []


def test_a_closed_port_says_that_nothing_listens_there(settings: Any) -> None:
    settings.OUTBOUND_ALLOW = [("127.0.0.0/8", None)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    report = services.test_connection(with_model(provider_at(f"http://127.0.0.1:{port}/v1"), "small"))
    assert not report.ok
    assert failed(report) == {**dict.fromkeys(CHAT_CHECKS, "not_offered"), "list": "fail"}
    assert detail(report, "list") == f"Nothing listens at http://127.0.0.1:{port}/v1."


def test_a_vendor_that_goes_away_between_two_keys_is_not_fine(stub: Vendor) -> None:
    stub.answers["/v1/models"] = (0, lambda _: (200, MODELS) if len(stub.asked) == 1 else (0, b""))
    report = services.test_connection(with_model(provider_at(stub.base_url, KEY, OTHER), "small"))
    assert failed(report) == {"auth, key …3210": "fail"}
    assert not report.ok


def test_when_time_is_up_the_report_says_what_was_found_so_far(stub: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def slow(body: dict[str, Any]) -> tuple[int, Any]:
        if "tools" in body:
            release.wait(30)
        return chat(body)

    stub.answers[CHAT_PATH] = (0, slow)
    monkeypatch.setattr(connection, "DEADLINE_S", 1.0)
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    release.set()
    assert report.ok
    assert failed(report) == dict.fromkeys(CHAT_CHECKS[5:], "not_offered")
    assert "stopped after 1 seconds" in detail(report, "tools")
    assert LLMModel.objects.get().capabilities == ["stream"]


def test_no_answer_to_the_first_question_in_time_is_a_failure(stub: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    stub.answers[CHAT_PATH] = (0, lambda body: (release.wait(30), chat(body))[1])
    monkeypatch.setattr(connection, "DEADLINE_S", 0.5)
    report = services.test_connection(with_model(provider_at(stub.base_url), "small"))
    release.set()
    assert (report.ok, results(report)["chat"]) == (False, "fail")


def test_a_private_address_is_refused_with_what_to_do(settings: Any) -> None:
    settings.OUTBOUND_ALLOW = []
    report = services.test_connection(provider_at("http://10.0.0.1/v1"))
    assert not report.ok
    assert "10.0.0.1/32:80" in detail(report, "list")
    assert "OUTBOUND_ALLOW" in detail(report, "list")


def test_a_needed_key_that_is_missing_is_said_before_any_call() -> None:
    report = services.test_connection(services.create_provider(name="p", provider_type="openai"))
    assert results(report) == {"key": "fail"}


def test_an_adapter_that_cannot_be_imported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_custom_allowed", {"no.such.module:Adapter"})
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
