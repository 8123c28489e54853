"""/ready before and after migrations, on a real server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import free_port
from tests.live import manage
from tests.run.serving import Prepared, Served
from tests.security.test_a35_deployment import SECRETS

pytestmark = pytest.mark.process


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """On a database that nobody has migrated."""
    served = Served(Prepared(tmp_path, "", ""), free_port(), **SECRETS)
    try:
        yield served
    finally:
        served.end()


def ready(served: Served) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/ready", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


def test_not_ready_until_migrated_and_then_without_a_restart(served: Served, tmp_path: Path) -> None:
    env = {**SECRETS, "LLM_STATE_DIR": str(tmp_path)}
    served.until(lambda: "lacks migrations" in ready(served)[1].get("reason", ""))
    status, said = ready(served)
    assert status == 503
    assert said["reason"].endswith("run `manage.py migrate`")
    assert served.get("/health") == 200
    assert manage("migrate", "-v", "0", env=env, timeout_s=120).returncode == 0
    served.until(lambda: ready(served)[0] == 200)
