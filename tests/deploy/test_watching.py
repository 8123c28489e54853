"""The dashboard and the alert rules ask for what a live gateway says, by names and labels that it has."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from core import errors
from monitoring import metrics
from tests.deploy import promql
from tests.deploy.promql import Selector
from tests.deploy.shipped import DEPLOY, ROOT
from tests.e2e import wire
from tests.live import LiveServer

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "llmcontrol.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
SCRAPE: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
GRAFANA = {"$__rate_interval": "5m", "$provider": ".*", "$model": ".*"}
# Prometheus' own: of the target, and of whether it answered.
TARGET = {"job", "instance"}
OUTCOMES = {"ok", "error", "client_closed"}


def _expressions() -> list[tuple[str, str]]:
    """(where, expression), with Grafana's variables filled in."""
    found = [(f"alert {rule['alert']}", rule["expr"]) for rule in RULES]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in GRAFANA.items():
                expression = expression.replace(name, value)
            found.append((f"panel {panel['title']}", expression))
    return found


EXPRESSIONS = _expressions()


def _labels() -> dict[str, set[str]]:
    """Of every series that the product declares, by its name as Prometheus stores it."""
    found: dict[str, set[str]] = {"up": set()}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            own = set(metric._labelnames)
            if family.type == "histogram":
                found |= {f"{family.name}_{part}": own for part in ("sum", "count")} | {f"{family.name}_bucket": own | {"le"}}
            else:
                found[f"{family.name}_total" if family.type == "counter" else family.name] = own
    return found


LABELS = _labels()


def problems(expression: str) -> list[str]:
    """What a live Prometheus would answer with nothing, or refuse. Raises ValueError for what is no PromQL."""
    read = promql.read(expression)
    found = [f"no metric {each.name}" for each in read.selectors if each.name not in LABELS]
    for each in (each for each in read.selectors if each.name in LABELS):
        has = LABELS[each.name] | TARGET
        found += [f"{each.name} has no label {label}" for label, _, _ in each.matchers if label not in has]
        found += [f"{each.name} has no {label} {value}" for label, operator, value in each.matchers if not _can_be(label, operator, value)]
    for labels, below in read.groupings:
        found += [
            f"{each.name} has no label {label}" for label in labels for each in below if label not in LABELS.get(each.name, set()) | TARGET
        ]
    return found + [f"{each.name} is a counter: its sum says nothing, its rate does" for each in read.selectors if _bare(each)]


def _bare(selector: Selector) -> bool:
    return selector.name.endswith(("_total", "_bucket")) and not selector.ranged


def _can_be(label: str, operator: str, value: str) -> bool:
    codes = {each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.GatewayError)}
    known: dict[str, set[Any]] = {"outcome": OUTCOMES, "code": codes, "result": {"hit", "shared", "miss", "off"}, "job": {"llmcontrol"}}
    return label not in known or set(value.split("|")) <= known[label]


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_an_expression_asks_for_what_there_is(where: str, expression: str) -> None:
    assert problems(expression) == []


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("sum(rate(llm_request_total[5m]))", ["no metric llm_request_total"]),
        ("sum by (team) (rate(llm_requests_total[5m]))", ["llm_requests_total has no label team"]),
        ('sum(rate(llm_errors_total{model="x"}[5m]))', ["llm_errors_total has no label model"]),
        ('rate(llm_requests_total{outcome="failed"}[5m])', ["llm_requests_total has no outcome failed"]),
        ("sum(llm_requests_total)", ["llm_requests_total is a counter: its sum says nothing, its rate does"]),
    ],
)
def test_what_there_is_not_is_found(expression: str, found: list[str]) -> None:
    assert problems(expression) == found


@pytest.mark.parametrize(
    "expression", ["sum(rate(llm_requests_total))", "sum(up", "up ==", "up{job=llmcontrol}", "up @ 5", "top(up)", "sum by up (up)"]
)
def test_what_is_no_promql_is_refused(expression: str) -> None:
    with pytest.raises(ValueError):
        promql.read(expression)


@pytest.mark.process
def test_a_live_gateway_exposes_all_of_it(live: LiveServer) -> None:
    """By the token that deploy/prometheus/prometheus.yaml has Prometheus send."""
    wire.chat(live.base_url, live.api_key or "", live.model or "")
    (job,) = SCRAPE["scrape_configs"]
    scheme = job["authorization"]["type"]
    answer = wire.call(live.base_url, "GET", job["metrics_path"], headers={"Authorization": f"{scheme} {live.admin_token}"})
    assert answer.status == 200
    text = answer.body.decode()
    families = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    for where, expression in EXPRESSIONS:
        for each in promql.read(expression).selectors:
            assert each.name == "up" or each.name.removesuffix("_bucket") in families, where
    for name, labels in re.findall(r"^(llm_\w+)\{(.*)\} ", text, re.MULTILINE):
        own = name.removesuffix("_created") if name.endswith("_created") else name
        if own in LABELS:
            assert set(re.findall(r'(\w+)="', labels)) - {"pid"} == LABELS[own], name


def test_an_alert_says_what_is_wrong_and_has_a_runbook() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    names = [rule["alert"] for rule in RULES]
    assert re.findall(r"^### (Llmcontrol\w+)$", page, re.MULTILINE) == names, (
        "each alert has its place in docs/operations.md, in this order"
    )
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        grouped = {label for labels, _ in promql.read(rule["expr"]).groupings for label in labels}
        assert used <= grouped | (TARGET if rule["expr"].startswith("up{") else set()), rule["alert"]


def test_the_dashboard_is_whole() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for variable in DASHBOARD["templating"]["list"][1:]:
        name, label = re.findall(r"^label_values\((\w+)(?:\{.*\})?, (\w+)\)$", variable["query"]["query"])[0]
        assert label in LABELS[name]


def test_prometheus_is_told_where_the_rules_are() -> None:
    assert [(DEPLOY / "prometheus" / name).is_file() for name in SCRAPE["rule_files"]] == [True]
