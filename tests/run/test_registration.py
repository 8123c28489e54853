"""A server is known to Nacos for as long as it serves, whether that answers, forgets, fails or is not there."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigurationError
from core.guard import Guard
from core.outbound import GuardedTransport
from llmcontrol import VERSION, nacos
from llmcontrol.environment import Environment
from llmcontrol.nacos import Nacos
from llmcontrol.registration import BEAT_S, MAX_PAUSE_S, Registrar, Registry
from tests.e2e import wire
from tests.e2e.control import until
from tests.faults.processes import free_port
from tests.live import LiveServer
from tests.run.nacos_stub import PASSWORD, USERNAME, NacosStub

WITHIN_S = 60.0


@pytest.fixture
def stub() -> Iterator[NacosStub]:
    made = NacosStub(login=True)
    yield made
    made.close()


def read(**environ: str) -> Nacos | None:
    return nacos.read(Environment(environ))


def settings_of(*addresses: str) -> Nacos:
    found = read(
        NACOS_SERVER_ADDR=",".join(addresses),
        NACOS_INSTANCE_IP="10.1.2.3",
        NACOS_INSTANCE_PORT="8000",
        NACOS_USERNAME=USERNAME,
        NACOS_PASSWORD=PASSWORD,
        NACOS_NAMESPACE="prod",
        NACOS_WEIGHT="3",
        NACOS_METADATA="region=eu-1, zone=b",
    )
    assert found is not None
    return found


class Held:
    """A registrar whose time and readiness the test holds."""

    def __init__(self, *addresses: str) -> None:
        self.now, self.ready = 1_000.0, True
        self._settings = settings_of(*addresses)

    def run(self, story: Callable[[Registrar], Awaitable[None]]) -> None:
        async def whole() -> None:
            transport = GuardedTransport(Guard([("127.0.0.0/8", None)]))
            registry = Registry(self._settings, VERSION, transport)
            try:
                await story(Registrar(registry, self._settings.weight, self._is_ready, lambda: self.now))
            finally:
                await transport.close()

        asyncio.run(whole())

    async def _is_ready(self) -> bool:
        return self.ready


def test_nobody_is_told_where_no_address_is_set() -> None:
    assert read() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("NACOS_SERVER_ADDR", "a b"), ("NACOS_INSTANCE_IP", "gateway-1"), ("NACOS_METADATA", "region"), ("NACOS_WEIGHT", "0")],
)
def test_a_setting_that_cannot_work_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        read(**{"NACOS_SERVER_ADDR": "n", name: value})


def test_addresses_get_what_they_lack() -> None:
    found = read(NACOS_SERVER_ADDR="nacos-1, nacos-2:9000, https://nacos.example:443, [fd00::1]")
    assert found is not None
    assert found.servers == ("http://nacos-1:8848", "http://nacos-2:9000", "https://nacos.example:443", "http://[fd00::1]:8848")
    assert PASSWORD not in repr(settings_of("n"))


def test_it_is_known_from_when_it_is_ready_until_it_ends(stub: NacosStub) -> None:
    held = Held(stub.address)

    async def story(registrar: Registrar) -> None:
        held.ready = False
        await registrar.step()
        assert stub.instances == {}
        held.ready = True
        await registrar.step()
        ((which, instance),) = stub.instances.items()
        assert which == ("prod", "DEFAULT_GROUP@@llmcontrol", "10.1.2.3", "8000")
        assert (instance["weight"], instance["ephemeral"], instance["clusterName"]) == ("3", "true", "DEFAULT")
        assert json.loads(instance["metadata"]) == {"version": VERSION, "region": "eu-1", "zone": "b"}
        held.now += BEAT_S - 0.1
        await registrar.step()
        assert stub.beats() == 0
        held.now += 0.1
        await registrar.step()
        assert stub.beats() == 1
        held.ready = False
        await registrar.step()
        assert stub.weights() == [0]
        await registrar.leave()
        assert stub.instances == {}
        assert stub.logins == 1

    held.run(story)


def test_what_is_forgotten_is_told_anew(stub: NacosStub) -> None:
    held = Held(stub.address)

    async def story(registrar: Registrar) -> None:
        await registrar.step()
        stub.instances.clear()
        stub.passes.clear()  # the pass has run out, too
        held.now += BEAT_S
        await registrar.step()
        await registrar.step()
        assert stub.weights() == [3]
        assert stub.logins == 2

    held.run(story)


def test_a_registry_that_fails_is_asked_ever_more_rarely_and_said_once(stub: NacosStub, caplog: pytest.LogCaptureFixture) -> None:
    held = Held(stub.address)
    stub.fails = True

    async def story(registrar: Registrar) -> None:
        with caplog.at_level(logging.INFO, "llmcontrol.registration"):
            for pause_s in (1, 2, 4, 8, 16, MAX_PAUSE_S, MAX_PAUSE_S):
                await registrar.step()
                assert registrar._again_at == held.now + pause_s
                held.now += pause_s
            stub.fails = False
            await registrar.step()
        assert stub.weights() == [3]

    held.run(story)
    said = [record.getMessage() for record in caplog.records]
    assert [message.split(".")[0] for message in said] == [
        "Nacos cannot be told of this server; it is tried again, and requests are served meanwhile",
        "Nacos knows this server, with weight 3",
        "Nacos can be told again",
    ]
    assert PASSWORD not in "".join(said)


def test_the_next_server_is_asked_where_one_is_away(stub: NacosStub) -> None:
    held = Held(f"127.0.0.1:{free_port()}", stub.address)

    async def story(registrar: Registrar) -> None:
        await registrar.step()
        assert stub.weights() == [3]

    held.run(story)


def test_a_wrong_password_is_a_plain_sentence(stub: NacosStub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.run.nacos_stub.PASSWORD", "another")
    held = Held(stub.address)

    async def story(registrar: Registrar) -> None:
        await registrar.step()

    held.run(story)
    assert f"{stub.address}: it does not log us in (403): look at NACOS_USERNAME and NACOS_PASSWORD." in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.process
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_is_found_until_it_drains(tmp_path: Path, stub: NacosStub, workers: str) -> None:
    port = free_port()
    env = {"NACOS_SERVER_ADDR": stub.address, "NACOS_USERNAME": USERNAME, "NACOS_PASSWORD": PASSWORD, "LLM_DRAIN_DELAY_S": "3"}
    with LiveServer(tmp_path, env=env, options=["--workers", workers], port=port) as live:
        until(lambda: stub.instances, "it is registered", timeout_s=WITHIN_S)
        assert list(stub.instances) == [("public", "DEFAULT_GROUP@@llmcontrol", "127.0.0.1", str(port))]
        until(stub.beats, "it beats", timeout_s=WITHIN_S)
        assert stub.weights() == [1]
        live.process.send_signal(signal.SIGTERM)
        until(lambda: stub.weights() == [0], "its weight is 0 while it drains", timeout_s=WITHIN_S)
        assert wire.call(live.base_url, "GET", "/health").status == 200
    assert stub.instances == {}
    methods: list[Any] = [(method, given.get("weight")) for method, path, given in stub.asked if not path.endswith("/beat")]
    assert methods == [("POST", "1"), ("POST", "0"), ("DELETE", None)]


@pytest.mark.process
def test_a_registry_that_is_away_holds_nothing_up(tmp_path: Path) -> None:
    port = free_port()
    with LiveServer(tmp_path, env={"NACOS_SERVER_ADDR": f"127.0.0.1:{port}"}) as live:
        assert wire.chat(live.base_url, live.api_key, live.model or "").status == 200
        sentence = "Nacos cannot be told of this server; it is tried again, and requests are served meanwhile."
        until(lambda: sentence in live.log.read_text(), "it says so", timeout_s=WITHIN_S)
        late = NacosStub(port=port)
        try:
            until(late.weights, "it is registered once there is a registry", timeout_s=WITHIN_S)
        finally:
            live.stop()
            late.close()
    assert late.instances == {}
    assert live.exit_status == 0
