"""One live gateway, one fault vendor and one replay server for the whole folder; tests tell their rows apart by unique names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import replay
from tests.e2e import replay_drive, replay_judge
from tests.e2e.control import ECHO, Control
from tests.e2e.schema import Schema
from tests.e2e.vendor import Vendor
from tests.live import LiveServer

# Looking for changes ten times a second, and retrying once, keeps the tests short; test_changes.py is about the usual settings.
QUICK = {"OUTBOUND_ALLOW": "127.0.0.0/8:*", "LLM_CONFIG_POLL_S": "0.1", "LLM_DRAIN_INTERVAL_S": "0.05", "MAX_RETRIES": "1"}


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with LiveServer(tmp_path_factory.mktemp("e2e"), env=QUICK) as live:
        assert live.model == ECHO
        yield Control(live.base_url, live.admin_token or "", live.api_key or "")


@pytest.fixture(scope="session")
def vendor() -> Iterator[Vendor]:
    vendor = Vendor()
    try:
        yield vendor
    finally:
        vendor.close()


@pytest.fixture(scope="session")
def replay_url() -> Iterator[str]:
    """To be followed by /<id of an exchange>/v1."""
    with replay.replay_server() as url:
        yield url


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], dict[str, Any]]:
    """An exchange by its id, as its file spells it."""
    replay.require()

    def read(id_: str) -> dict[str, Any]:
        (path,) = replay.RECORDED.glob(f"*/{id_}.json")
        return json.loads(path.read_text())

    return read


@pytest.fixture(scope="session")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, replay_drive.Outcome]:
    """What became of every recorded exchange, by its id."""
    replay.require()
    return replay_drive.run(tmp_path_factory.mktemp("replay"))


@pytest.fixture(scope="session")
def verdicts(replayed: dict[str, replay_drive.Outcome]) -> dict[str, replay_judge.Verdict]:
    """By id."""
    return {id_: replay_judge.judge(outcome) for id_, outcome in replayed.items()}


@pytest.fixture(scope="session")
def schema(shared_dir: Path) -> Schema:
    return Schema(shared_dir)


@pytest.fixture
def timings(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    """Takes (what, seconds) of each refusal; the slowest are printed at the end of the run, and nothing is asserted of them."""
    return lambda what, seconds: record_property("refusal", (seconds, what))
