"""Spans of a live gateway, as they arrive at a collector in both formats, and the context that its vendors get."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e import wire
from tests.e2e.control import Control, unique, until
from tests.e2e.vendor import Vendor
from tests.live import LiveServer
from tests.telling.receiver import Receiver

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the exporters are not installed (requirements-extra.txt)")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

pytestmark = pytest.mark.process

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Receiver, vendor: Vendor) -> Iterator[Control]:
    env = {
        "OUTBOUND_ALLOW": f"127.0.0.0/8:{urlsplit(vendor.base_url).port}",
        "LLM_CONFIG_POLL_S": "0.1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}/_hook/ok/",
        "OTEL_EXPORTER_ZIPKIN_ENDPOINT": f"http://127.0.0.1:{collector.port}/_hook/ok/zipkin",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with LiveServer(tmp_path_factory.mktemp("traced"), env=env) as live:
        yield Control(live.base_url, live.admin_token or "", live.api_key or "")


def _otlp(body: bytes) -> Iterator[dict[str, Any]]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            values = {each.key: each.value for each in span.attributes}
            attributes = {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()}
            ids = {"id": span.span_id.hex(), "parent": span.parent_span_id.hex(), "trace": span.trace_id.hex()}
            took_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
            yield {"name": span.name, "service": service, "took_ms": took_ms, "failed": span.status.code == 2, **ids, **attributes}


def spans(collector: Receiver, trace: str) -> list[dict[str, Any]]:
    heard = [each for each in collector.heard if each.path.endswith("/v1/traces")]
    bodies = [gzip.decompress(each.body) if each.headers.get("content-encoding") == "gzip" else each.body for each in heard]
    return [span for body in bodies for span in _otlp(body) if span["trace"] == trace]


def zipkin(collector: Receiver, trace: str) -> list[dict[str, Any]]:
    heard = [each for each in collector.heard if each.path.endswith("/zipkin")]
    return [span for each in heard for span in json.loads(each.body) if span["traceId"] == trace]


def test_a_request_that_fails_over_is_one_trace_in_both_formats(traced: Control, collector: Receiver, vendor: Vendor) -> None:
    bad, good = (traced.model(traced.provider(vendor.base_url), model) for model in ("fault-500", "ok@tokens=7"))
    alias, prompt = unique("route"), unique("a prompt that is in no span")
    traced.call("POST", "/api/v1/llm/routes", {"alias": alias, "targets": [bad["alias"], good["alias"]]})
    traced.apply()
    body = {"model": alias, "messages": wire.asking(prompt), "stream": True}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "shop=1"}
    answer = wire.call(traced.base_url, "POST", "/v1/chat/completions", key=traced.key, body=body, headers=headers)
    assert answer.status == 200
    assert traced.request(answer.request_id)["trace_id"] == TRACE
    found = until(lambda: len(told := spans(collector, TRACE)) >= 3 and told, "three spans as OTLP")
    as_zipkin = until(lambda: len(told := zipkin(collector, TRACE)) >= 3 and told, "three spans as Zipkin")
    root = next(span for span in found if span["parent"] == PARENT)
    assert (root["name"], root["service"], root["failed"]) == (f"chat {alias}", "llmcontrol", False)
    first, second = sorted((span for span in found if span["parent"] == root["id"]), key=lambda span: span["llmcontrol.attempt"])
    assert (first["name"], first["failed"], first["error.type"]) == ("chat fault-500", True, "upstream_error")
    assert first["http.response.status_code"] == 500
    assert (second["name"], second["failed"]) == ("chat ok@tokens=7", False)
    assert second["gen_ai.usage.output_tokens"] == 7
    assert second["gen_ai.response.time_to_first_chunk"] >= 0
    assert root["took_ms"] >= second["took_ms"]
    # The vendor got the very spans as its parents.
    parents = [call["traceparent"] for call in vendor.calls(prompt)]
    assert parents[-1] == f"00-{TRACE}-{second['id']}-01"
    assert set(parents) >= {f"00-{TRACE}-{first['id']}-01"}
    assert {span["id"] for span in as_zipkin} == {span["id"] for span in found}
    assert not any(prompt.encode() in each.body for each in collector.heard)


def test_a_collector_that_is_away_costs_no_request(tmp_path: Path) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with LiveServer(tmp_path, env=env) as live:
        for _ in range(5):
            body = {"model": live.model, "messages": wire.HELLO}
            assert wire.call(live.base_url, "POST", "/v1/chat/completions", key=live.api_key, body=body).status == 200
    assert live.exit_status == 0


def test_a_vendor_gets_no_context_where_nothing_is_traced(control: Control, vendor: Vendor) -> None:
    model, prompt = control.model(control.provider(vendor.base_url), "ok"), unique("untraced")
    control.apply()
    body = {"model": model["alias"], "messages": wire.asking(prompt)}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert wire.call(control.base_url, "POST", "/v1/chat/completions", key=control.key, body=body, headers=headers).status == 200
    assert [call["traceparent"] for call in vendor.calls(prompt)] == [""]
