"""Several processes judge at once, on both databases: each alert fires once and ends once, and each channel is told so once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import postgres_database
from tests.live import copy_migrated
from tests.telling.alert_racer import SUBJECTS

ROOT = Path(__file__).resolve().parents[2]
RACERS = 3
PREPARE = """
from telling.alert_models import AlertRule
from telling.alert_services import save_channel
from telling.alert_models import AlertChannel
rule = AlertRule.objects.create(name="raced", condition="breaker_open", threshold=0)
rule.channels.add(save_channel(AlertChannel(name="mail", kind="email", recipients="ops@example.com")))
"""
COUNT = """
from telling.alert_models import Alert
from telling.models import Event, Webhook
for rows in (Alert.objects.all(), Webhook.objects.filter(event_type="alert.firing"), Webhook.objects.filter(event_type="alert.resolved"),
             Alert.objects.filter(resolved_at=None), Event.objects.all()):
    print(rows.count())
"""
pytestmark = pytest.mark.process


@pytest.fixture(params=["sqlite", "postgres"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    of_tests = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "LLM_STATE_DIR": str(tmp_path)}
    if request.param == "sqlite":
        yield of_tests | {"DATABASE_URL": copy_migrated(tmp_path)}
        return
    with postgres_database("alerts") as url:
        yield of_tests | {"DATABASE_URL": url}


def run(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def said(racer: subprocess.Popen[str], word: str) -> list[int]:
    assert racer.stdout is not None
    first, *numbers = racer.stdout.readline().split() or ["nothing"]
    assert first == word
    return [int(number) for number in numbers]


def go(racers: list[subprocess.Popen[str]]) -> None:
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()


def test_several_processes_fire_and_end_each_alert_once(environment: dict[str, str]) -> None:
    run(environment, "shell", "-v", "0", "-c", PREPARE)
    command = [sys.executable, "-m", "tests.telling.alert_racer"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) for _ in range(RACERS)]
    try:
        for racer in racers:
            said(racer, "ready")
        go(racers)
        turns, fired = zip(*(said(racer, "fired") for racer in racers), strict=True)
        go(racers)
        ended = [said(racer, "ended")[0] for racer in racers]
    finally:
        for racer in racers:
            racer.communicate(timeout=60)
    assert sum(turns) <= SUBJECTS
    assert sum(fired) == SUBJECTS
    assert sum(ended) == SUBJECTS
    alerts, told_firing, told_ended, open_, events = map(int, run(environment, "shell", "-v", "0", "-c", COUNT).split())
    assert (alerts, told_firing, told_ended, open_, events) == (SUBJECTS, SUBJECTS, SUBJECTS, 0, 2 * SUBJECTS)
