"""Two gateways with a state folder each, one database and one Redis: their limits are one, and Redis may go."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from core.errors import ConfigurationError
from gateway.sharing.redis_address import read_address
from gateway.sharing.redis_script import PREFIX
from tests.e2e import wire
from tests.e2e.control import ECHO, Control, until
from tests.gateway.redis_server import RedisServer, redis_server
from tests.live import ROOT, LiveServer, environment, manage

TRIES = 10


class Pair(NamedTuple):
    redis: RedisServer
    control: Control
    base_urls: tuple[str, str]
    logs: tuple[Path, Path]

    def new_key(self) -> str:
        """60 requests a minute; known to both."""
        key = self.control.new_key(rate_limit={"requests_per_minute": 60})["key"]
        for base_url in self.base_urls:
            until(lambda url=base_url: wire.call(url, "GET", "/v1/models", key=key).status == 200, "the key is known", timeout_s=30)
        return key

    def ask(self, key: str, base_url: str) -> wire.Answer:
        return wire.call(base_url, "POST", "/v1/chat/completions", key=key, body={"model": ECHO, "messages": wire.HELLO})

    def admitted(self, key: str, times: int) -> tuple[int, float]:
        """(of `times` requests, half of them to each: how many went through, in how many seconds). No answer but 200 and 429."""
        began_at = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: self.ask(key, self.base_urls[number % 2]), range(times)))
        assert {answer.status for answer in answers} <= {200, 429}
        return sum(answer.status == 200 for answer in answers), time.monotonic() - began_at

    def admitted_together(self, times: int) -> tuple[str, int, float]:
        """(a new key, and what `admitted` says of it), of a while in which both had Redis: on a busy machine an answer of it may take
        longer than they wait, and then they rightly count apart."""
        for _ in range(TRIES):
            until(lambda: self.up(1), "both reach Redis")
            key, lost = self.new_key(), self._times_away()
            count, seconds = self.admitted(key, times)
            if self._times_away() == lost:
                return key, count, seconds
        raise AssertionError(f"Redis was lost in each of {TRIES} tries")

    def _times_away(self) -> int:
        return sum(log.read_text().count("is away") for log in self.logs)

    def up(self, says: float) -> bool:
        """Whether both say so of Redis."""
        found = [self._metric(base_url) for base_url in self.base_urls]
        return found == [says, says]

    def _metric(self, base_url: str) -> float:
        headers = {"Authorization": f"Token {self.control._token}"}
        lines = wire.call(base_url, "GET", "/metrics", headers=headers).body.decode().splitlines()
        (line,) = [line for line in lines if line.startswith("llm_redis_up{")]
        return float(line.rpartition(" ")[2])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, unused_tcp_port_factory_for_module: int) -> Iterator[Pair]:
    folder, port = tmp_path_factory.mktemp("pair"), unused_tcp_port_factory_for_module
    with redis_server() as redis, LiveServer(folder / "a", env={"REDIS_URL": redis.url}) as first:
        (folder / "b").mkdir()
        (folder / "b" / "settings.env").write_text((folder / "a" / "settings.env").read_text())
        env = {
            "LLM_STATE_DIR": str(folder / "b"),
            "DATABASE_URL": f"sqlite:///{folder / 'a' / 'llmcontrol.sqlite3'}",
            "REDIS_URL": redis.url,
        }
        log = folder / "b" / "server.log"
        with log.open("ab") as out:
            command = [sys.executable, str(ROOT / "manage.py"), "serve", "--port", str(port)]
            second = subprocess.Popen(command, env=environment(env), stdout=out, stderr=out)
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: _ready(url), "the second gateway is ready", timeout_s=60)
            control = Control(first.base_url, str(first.admin_token), str(first.api_key))
            pair = Pair(redis, control, (first.base_url, url), (first.log, log))
            yield pair
        finally:
            second.terminate()
            second.wait(20)


@pytest.fixture(scope="module")
def unused_tcp_port_factory_for_module() -> int:
    return RedisServer().port


def _ready(url: str) -> bool:
    try:
        return wire.call(url, "GET", "/ready").status == 200
    except OSError:
        return False


@pytest.mark.process
def test_two_gateways_hold_one_limit(pair: Pair) -> None:
    key, count, seconds = pair.admitted_together(140)
    assert 60 <= count <= 63 + seconds
    answer = pair.ask(key, pair.base_urls[1])
    if answer.status == 429:
        assert "of 60 requests per minute" in answer.error["message"]
        assert answer.headers["x-ratelimit-limit-requests"] == "60"


@pytest.mark.process
@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_without_redis_each_serves_its_part_and_they_find_together_again(pair: Pair, how: str) -> None:
    until(lambda: pair.up(1), "both reach Redis")
    time.sleep(2.5)  # both have heard of each other
    key, before, _ = pair.admitted_together(20)
    began_at = time.monotonic()
    assert before == 20
    getattr(pair.redis, how)()
    count = before + pair.admitted(key, 140)[0]
    assert 55 <= count <= 72 + (time.monotonic() - began_at)  # 1.2 × 60, and what has refilled
    assert pair.up(0)
    for log in pair.logs:
        assert "is away" in log.read_text()
    pair.redis.thaw() if how == "freeze" else pair.redis.start()
    _, count, seconds = pair.admitted_together(140)
    assert 60 <= count <= 63 + seconds


@pytest.mark.process
def test_a_gateway_starts_without_redis(tmp_path: Path) -> None:
    with LiveServer(tmp_path, env={"REDIS_URL": "redis://:hidden@127.0.0.1:1/0"}) as server:
        body = {"model": server.model, "messages": wire.HELLO}
        assert wire.call(server.base_url, "POST", "/v1/chat/completions", key=server.api_key, body=body).status == 200
        log = server.log.read_text()
    assert server.exit_status == 0
    assert log.count("redis at 127.0.0.1:1 is away") == 1
    assert "hidden" not in log
    assert "Traceback" not in log


@pytest.mark.process
def test_workers_of_one_machine_count_as_one(tmp_path: Path) -> None:
    with redis_server() as redis, LiveServer(tmp_path, env={"REDIS_URL": redis.url}, options=["--workers", "2"]) as server:
        until(lambda: server.log.read_text().count("limits hold for all machines") == 2, "both workers reach Redis")
        living = redis.cli("zrange", f"{PREFIX}live", "0", "-1").split()
        assert len(living) == 2
        assert len({process.partition(":")[0] for process in living}) == 1
    assert server.exit_status == 0
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", ("localhost", 6379, "", False, "", "", 0)),
        ("redis://:p%40ss@10.0.0.1:7000/3", ("10.0.0.1", 7000, "", False, "", "p@ss", 3)),
        ("rediss://ada:pw@[::1]", ("::1", 6379, "", True, "ada", "pw", 0)),
        ("unix:///run/redis.sock?db=2", ("", 6379, "/run/redis.sock", False, "", "", 2)),
    ],
)
def test_an_address_is_read(url: str, expected: tuple[object, ...]) -> None:
    address = read_address(url)
    assert (*address[:5], address.password.reveal(), address.database) == expected


@pytest.mark.parametrize(
    "url",
    [
        "hidden:6379",
        "http://hidden",
        "redis://",
        "redis://:hidden@h:99999",
        "redis://hidden/x",
        "redis://h/-1",
        "redis://hidden?a=b",
        "unix://h",
    ],
)
def test_a_bad_address_is_named_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"REDIS_URL: .*write redis://") as refused:
        read_address(url)
    assert "hidden" not in str(refused.value)


def test_a_bad_address_stops_the_start() -> None:
    done = manage("check", env={"REDIS_URL": "http://:hidden@x", "SECRET_KEY": "x" * 40, "API_KEY_PEPPER": "x" * 40,
                                "KEY_ENCRYPTION_KEYS": "1:" + "A" * 43 + "="})  # fmt: skip
    assert done.returncode != 0
    assert "REDIS_URL" in done.stderr
    assert "hidden" not in done.stderr
