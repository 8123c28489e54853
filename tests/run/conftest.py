"""A state folder that is set up once, and servers on it that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.control import Control
from tests.e2e.vendor import Vendor
from tests.live import LiveServer
from tests.run.serving import Prepared, Served

MODELS = {"quick": "ok@tokens=3", "slow": "ok@tokens=40,delay=0.05", "endless": "ok@tokens=1200,delay=0.05"}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    vendor = Vendor()
    try:
        with LiveServer(tmp_path_factory.mktemp("serve"), env={"OUTBOUND_ALLOW": "127.0.0.0/8:*", "LLM_CONFIG_POLL_S": "0.1"}) as live:
            control = Control(live.base_url, live.admin_token or "", live.api_key or "")
            provider = control.provider(vendor.base_url, api_key="sk-vendor")
            for alias, model_id in MODELS.items():
                control.model(provider, model_id, alias=alias)
        yield Prepared(live.state_dir, live.api_key or "", live.admin_token or "")
    finally:
        vendor.close()


@pytest.fixture
def serve(prepared: Prepared, unused_tcp_port_factory: Callable[[], int]) -> Iterator[Callable[..., Served]]:
    """Starts a server with these options and settings, and waits until it is ready, with every worker."""
    started: list[Served] = []

    def start(*options: str, **env: str) -> Served:
        served = Served(prepared, unused_tcp_port_factory(), *options, **env)
        started.append(served)
        served.until(lambda: served.serving() and served.get("/ready") == 200)
        return served

    yield start
    for served in started:
        served.end()
