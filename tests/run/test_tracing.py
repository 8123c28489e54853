"""Where spans go, and what is said when they cannot."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from core.errors import ConfigurationError
from llmcontrol import tracing
from llmcontrol.environment import Environment
from providers.adapters import registry


def test_nothing_is_traced_unless_it_is_asked_for(settings: Any) -> None:
    assert tracing.tracer() is None


@pytest.mark.parametrize(
    ("setting", "variable", "module"),
    [
        ("OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "opentelemetry.exporter.otlp.proto.http.trace_exporter"),
        ("ZIPKIN_ENDPOINT", "OTEL_EXPORTER_ZIPKIN_ENDPOINT", "opentelemetry.exporter.zipkin.json"),
    ],
)
def test_an_exporter_that_is_not_installed_is_named(
    settings: Any, monkeypatch: pytest.MonkeyPatch, setting: str, variable: str, module: str
) -> None:
    setattr(settings, setting, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=f"{variable} is set.*requirements-extra.txt"):
        tracing.tracer()


@pytest.mark.parametrize("value", ["collector:4318", "ftp://collector", "http://", "http://a b"])
def test_an_address_that_is_none_stops_the_start(value: str) -> None:
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_ENDPOINT: write a URL"):
        Environment({"OTEL_EXPORTER_OTLP_ENDPOINT": value}).url("OTEL_EXPORTER_OTLP_ENDPOINT")


def test_names_of_the_conventions_are_for_kinds_that_there_are() -> None:
    assert tracing._PROVIDERS.keys() <= dict(registry.kinds()).keys()
