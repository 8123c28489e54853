"""Spans of requests and vendor calls, exported by OpenTelemetry's SDK where `OTEL_EXPORTER_*` says so.

Nothing of it is imported otherwise. Names are those of the semantic conventions for generative AI (opentelemetry.io/docs/specs/semconv/
gen-ai, of semantic-conventions 0.66b2), which are still incubating: therefore constants of our own. Prompts and answers are in no span.
What the exporters send does not pass `core.outbound`: the address is the operator's, from the environment, and no row can change it.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from django.conf import settings

from core.errors import ConfigurationError
from gateway.tracing import AttemptSpan, Trace
from monitoring.journal import AttemptSettled, RequestEnded

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.trace import SpanContext, SpanKind

_OTLP: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter", "OTLPSpanExporter"
_ZIPKIN: Final = "opentelemetry.exporter.zipkin.json", "ZipkinExporter"
_TIMEOUT_S: Final = 5
_CLOSE_TIMEOUT_S: Final = 3.0
_OPERATIONS: Final = {"embeddings": "embeddings", "completions": "text_completion"}
# By kind of provider; the conventions have no name for the others, which keep theirs.
_PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
_INPUT_TOKENS: Final = tuple(
    name for name in AttemptSettled.__struct_fields__ if name.endswith("_tokens") and ("input" in name or "cache" in name)
)
_OUTPUT_TOKENS: Final = ("output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens")


def tracer() -> OpenTelemetry | None:
    """None where no exporter is asked for. Raises ConfigurationError where one is and cannot be imported."""
    otlp, zipkin = settings.OTLP_ENDPOINT, settings.ZIPKIN_ENDPOINT
    exporters = []
    if otlp:
        exporters.append(_exporter("OTEL_EXPORTER_OTLP_ENDPOINT", *_OTLP)(endpoint=f"{otlp.rstrip('/')}/v1/traces", timeout=_TIMEOUT_S))
    if zipkin:
        exporters.append(_exporter("OTEL_EXPORTER_ZIPKIN_ENDPOINT", *_ZIPKIN)(endpoint=zipkin, timeout=_TIMEOUT_S))
    return OpenTelemetry(exporters, settings.TRACE_RATIO, settings.TRACE_SERVICE_NAME) if exporters else None


def _exporter(setting: str, module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        raise ConfigurationError(
            f"{setting} is set, and the exporter is not installed: pip install --require-hashes -r requirements-extra.txt"
        ) from None


class OpenTelemetry:
    """A `gateway.tracing.Tracer`. Spans wait in the SDK's bounded queues, one for each exporter, and are sent by threads of their own."""

    def __init__(self, exporters: Sequence[Any], ratio: float, service_name: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self.ratio = ratio
        self._processors: list[SpanProcessor] = [BatchSpanProcessor(exporter) for exporter in exporters]
        self._resource = Resource.create({"service.name": service_name})

    def ended(self, trace: Trace, request: RequestEnded) -> None:
        from opentelemetry.trace import SpanKind

        operation = _OPERATIONS.get(request.dialect, "chat")
        context = _context(trace.trace_id, trace.span_id)
        parent = _context(trace.trace_id, trace.parent_id, remote=True) if trace.parent_id else None
        self._export(
            f"{operation} {request.alias}", SpanKind.SERVER, context, parent, request.started_at, request, _of_request(request, operation)
        )
        for attempt in trace.attempts:
            self._export(
                f"{operation} {attempt.target.model.model_id}",
                SpanKind.CLIENT,
                _context(trace.trace_id, attempt.span_id),
                context,
                attempt.started_at,
                attempt.settled,
                _of_attempt(attempt, operation, request.streamed),
            )

    def close(self) -> None:
        """Sends what waits, for a few seconds at most. Blocks: call it in a thread."""
        closing = [threading.Thread(target=processor.shutdown, daemon=True) for processor in self._processors]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(_CLOSE_TIMEOUT_S)

    def _export(
        self,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        started_at: float,
        record: RequestEnded | AttemptSettled,
        attributes: Mapping[str, Any],
    ) -> None:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import Status, StatusCode

        failed = record.error_code and record.error_code != "client_closed_request"
        start_ns = int(started_at * 1e9)
        span: ReadableSpan = ReadableSpan(
            name=name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=Status(StatusCode.ERROR, record.error_code) if failed else Status(),
            start_time=start_ns,
            end_time=start_ns + record.duration_ms * 1_000_000,
        )
        for processor in self._processors:
            processor.on_end(span)


def _context(trace_id: int, span_id: int, *, remote: bool = False) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(trace_id, span_id, is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _of_request(request: RequestEnded, operation: str) -> dict[str, Any]:
    return _known(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": request.alias,
            "gen_ai.request.stream": request.streamed,
            "http.response.status_code": request.status_code,
            "error.type": request.error_code,
            "llmcontrol.request_id": request.request_id,
            "llmcontrol.team": request.team_name,
            "llmcontrol.key": request.key_name,
            "llmcontrol.task_type": request.task_type,
            "llmcontrol.tag": request.tag,
            "llmcontrol.cache": request.cache,
            "llmcontrol.attempts": request.attempts,
        }
    )


def _of_attempt(attempt: AttemptSpan, operation: str, streamed: bool) -> dict[str, Any]:
    settled, provider = attempt.settled, attempt.target.provider
    address = urlsplit(provider.base_url)
    return _known(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _PROVIDERS.get(provider.kind, provider.kind),
            "gen_ai.request.model": attempt.target.model.model_id,
            "gen_ai.request.stream": streamed,
            "gen_ai.response.finish_reasons": [settled.finish_reason] if settled.finish_reason else None,
            "gen_ai.response.time_to_first_chunk": None if settled.first_token_ms is None else settled.first_token_ms / 1000,
            "gen_ai.usage.input_tokens": sum(getattr(settled, name) for name in _INPUT_TOKENS),
            "gen_ai.usage.output_tokens": sum(getattr(settled, name) for name in _OUTPUT_TOKENS),
            "gen_ai.usage.cache_read.input_tokens": settled.cached_input_tokens or None,
            "gen_ai.usage.cache_creation.input_tokens": (settled.cache_write_tokens + settled.cache_write_1h_tokens) or None,
            "gen_ai.usage.reasoning.output_tokens": settled.reasoning_tokens or None,
            "server.address": address.hostname,
            "server.port": address.port,
            "http.response.status_code": settled.vendor_status or None,
            "error.type": settled.error_code,
            "llmcontrol.provider": provider.name,
            "llmcontrol.attempt": settled.attempt,
            "llmcontrol.usage_source": settled.usage_source,
            "llmcontrol.cost_micros": settled.cost_micros,
            "llmcontrol.currency": settled.currency,
        }
    )


def _known(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None and value != ""}
