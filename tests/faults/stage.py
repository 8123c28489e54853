"""The stage: the product as real processes on one database, the vendor that misbehaves, and a canary that nobody may call."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.control import Control, unique
from tests.faults import figures
from tests.faults.backends import SECRETS, SQLITE_FILE, Services
from tests.faults.books import Books
from tests.faults.client import Client, request
from tests.faults.database import Database
from tests.faults.figures import Figures
from tests.faults.history import History, Row
from tests.faults.loads import Load, LoadSize, new_row
from tests.faults.machine import Death, Machine
from tests.faults.processes import clients_of, rss_bytes, until
from tests.faults.vendor import Vendor

# Looking ten times a second keeps tests short; everything else is as delivered.
SETTINGS = {
    "LLM_CONFIG_POLL_S": "0.1",
    "LLM_DRAIN_INTERVAL_S": "0.2",
    "LLM_SHUTDOWN_GRACE_S": "5",
    "OUTBOUND_ALLOW": "127.0.0.0/8:*",
}
SETTLED_S = 0.6  # longer than two drains
_ANSWER_S = 2.0


class Rss:
    """Resident memory of all workers together, in megabytes, twenty times a second. Who they are is looked up once a second: that
    reads of every process there is, beside clients that are being timed."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self._machines = machines
        self._find()
        self.start_mb = self.peak_mb = self._now()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def over_mb(self) -> float:
        return self.peak_mb - self.start_mb

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _find(self) -> None:
        self._workers = [pid for machine in self._machines for pid in machine.workers()]

    def _now(self) -> float:
        return sum(map(rss_bytes, self._workers)) / 2**20

    def _watch(self) -> None:
        looks = 0
        while not self._stopped.wait(0.05):
            looks += 1
            if not looks % 20:
                self._find()
            self.peak_mb = max(self.peak_mb, self._now())


class Stage:
    def __init__(
        self,
        folder: Path,
        backend: str,
        services: Services,
        credentials: Mapping[str, str],
        vendor: Vendor,
        canary: Vendor,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.backend, self.services = folder, backend, services
        self.vendor, self.canary = vendor, canary
        self.database = Database(services.postgres or services.folder / SQLITE_FILE)
        self.machines: list[Machine] = []
        self.deaths: list[Death] = []
        self.key = credentials["api_key"]
        self.secrets = [*SECRETS.values(), credentials["admin_token"], credentials["password"]]
        self._token = credentials["admin_token"]
        self._env = {**SETTINGS, **services.env, **(env or {})}
        self._heard = History()
        self._excused: list[str] = []
        self._lost: list[str] = []
        self._tls: Vendor | None = None

    @property
    def machine(self) -> Machine:
        return self.machines[0]

    @property
    def token(self) -> str:
        """The administrator's."""
        return self._token

    @property
    def control(self) -> Control:
        return Control(self.machine.base_url, self._token, self.key)

    def add_machine(self, workers: int = 2, env: Mapping[str, str] | None = None, *, start: bool = True) -> Machine:
        """On the same database, with a state folder of its own."""
        state_dir = self.folder / f"machine-{len(self.machines)}"
        state_dir.mkdir()
        machine = Machine(state_dir, {**self._env, **(env or {})}, workers, self.deaths)
        self.machines.append(machine)
        if start:
            machine.start()
        return machine

    def tls_vendor(self) -> Vendor:
        """A second vendor that also serves with certificates."""
        self._tls = self._tls or Vendor(self.folder, "tls-vendor", tls=True)
        return self._tls

    # Rows, by the product's own REST ----------------------------------------------------------------------------------

    def provider(self, *, keys: Sequence[str] | None = None, base_url: str | None = None, **fields: Any) -> dict[str, Any]:
        keys = [f"sk-planted-{secrets.token_hex(12)}"] if keys is None else keys
        self.secrets += keys
        config = {"base_url": base_url or self.vendor.base_url, "api_keys": list(keys), **fields.pop("config", {})}
        body = {"name": unique("vendor"), "provider_type": "openai_compatible", "config": config, "is_active": True, **fields}
        return self.control.call("POST", "/api/v1/llm/providers", body)

    def model(
        self,
        *vendor_models: str,
        provider: Mapping[str, Any] | None = None,
        alias: str = "",
        price: tuple[str, str] | None = ("1.00", "2.00"),
        **fields: Any,
    ) -> str:
        """`price`: input and output per million; None = it has none. In force when this returns."""
        alias = alias or unique("model")
        for priority, name in enumerate(vendor_models, start=1):
            target = provider or self.provider()
            row = self.control.model(dict(target), name, alias=alias, **{"priority": priority, **fields})
            if price is not None:
                self.control.price(row, input=price[0], output=price[1])
        self.apply()
        return alias

    def api_key(self, **fields: Any) -> dict[str, Any]:
        key = self.control.new_key(**fields)
        self.secrets.append(key["key"])
        self.apply()
        return key

    def apply(self, timeout_s: float = 60.0) -> None:
        """Every worker of every machine has the rows of this moment."""
        wanted = self.database.config_version()
        for machine in self.machines:
            informed: set[int] = set()
            until(
                lambda machine=machine, informed=informed: _in_force(machine, self.key, wanted, informed),
                "the configuration is in force",
                timeout_s=timeout_s,
            )

    # Traffic ----------------------------------------------------------------------------------------------------------

    def load(
        self, alias: str, size: LoadSize, *, key: str | None = None, machines: Sequence[Machine] | None = None, **options: Any
    ) -> Load:
        ports = [machine.port for machine in machines or self.machines]
        return Load(alias, size, ports=ports, key=key or self.key, heard=self._heard, **options)

    def ask(
        self,
        alias: str,
        prompt: str | None = None,
        *,
        stream: bool = False,
        key: str | None = None,
        machine: Machine | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        **fields: Any,
    ) -> Row:
        """One request on a connection of its own. `prompt` as it is; without one it is a nonce, which finds the vendor's calls."""
        row = new_row(alias, stream)
        if prompt is not None:
            row.prompt, row.nonce = prompt, prompt.split(maxsplit=1)[0] if prompt.startswith("nonce:") else ""
        port = (machine or self.machine).port
        asyncio.run(_ask_once(row, port, request(row, port, key or self.key, headers or {}, fields), timeout_s))
        self._heard.append(row)
        return row

    # Looking ----------------------------------------------------------------------------------------------------------

    def check(
        self, history: History, *, fault_end: float | None = None, drain_s: float = 30.0, expect_tokens: int | None = None
    ) -> Figures:
        """Waits until nothing more comes, at most `drain_s`, and joins the three ledgers. Fails on a swapped answer."""
        give_up_at = time.monotonic() + drain_s
        settled_at, seen = time.monotonic(), -1
        while True:
            usage, calls = self.database.usage(), self.vendor.ledger() + (self._tls.ledger() if self._tls else [])
            found = figures.work_out(
                history,
                calls,
                usage,
                heard=self._heard,
                deaths=self.deaths,
                secrets=self.secrets,
                fault_end=fault_end,
                expect_tokens=expect_tokens,
            )
            if len(usage) != seen:
                settled_at, seen = time.monotonic(), len(usage)
            complete = not found.use_lost and all(attempt.call is None or attempt.usage for attempt in found.attempts)
            if time.monotonic() > give_up_at or (complete and time.monotonic() > settled_at + SETTLED_S):
                break
            time.sleep(0.2)
        assert found.swap == 0, f"answers to other prompts:\n{found.explain()}"
        return found

    @contextmanager
    def rss(self) -> Iterator[Rss]:
        watched = Rss(self.machines)
        try:
            yield watched
        finally:
            watched.stop()

    def double_charges(self) -> tuple[int, int]:
        """(requests, DUP) of everything that was asked here. Of a vendor that has forgotten what it was asked, only records that name
        one attempt twice are counted. Raises what the driver raises where the database is away."""
        usage = self.database.usage()
        calls = None if self.vendor.forgot else self.vendor.ledger() + (self._tls.ledger() if self._tls else [])
        return len(self._heard), figures.double_charges(self._heard, calls, usage)

    # The end ----------------------------------------------------------------------------------------------------------

    def expect_traceback(self, text: str) -> None:
        """Tracebacks in the servers' logs that hold `text` are no defect."""
        self._excused.append(text)

    def expect_difference(self, text: str) -> None:
        """What `ledger_check` finds that holds `text` is no defect: the test has destroyed what would balance it."""
        self._lost.append(text)

    def difference(self, books: Books) -> str:
        """The first in the books; "" = they balance."""
        found = books.difference(self.services)
        return "" if any(text in found for text in self._lost) else found

    def defects(self) -> list[str]:
        """What no test may leave behind: tracebacks in a server's log, calls at the canary."""
        found = [trace for machine in self.machines for trace in tracebacks(machine.log_text())]
        found = [trace for trace in found if not any(text in trace for text in self._excused)]
        stats = self.canary.stats()
        return found + ([f"the canary was called: {stats}"] if stats["total"] or stats["unexpected"] else [])

    def logs(self) -> list[Path]:
        return [machine.log for machine in self.machines] + [self.vendor.log, *self.services.logs()]

    def close(self) -> None:
        for machine in self.machines:
            machine.close()
        for vendor in (self.vendor, self._tls):
            if vendor:
                vendor.close()
        self.services.close()


def tracebacks(log: str) -> list[str]:
    """Each with the lines that belong to it: indented ones, and the one that names the exception."""
    found: list[str] = []
    inside = False
    for line in log.splitlines():
        if line.lstrip().startswith("Traceback "):
            found.append(line)
            inside = True
        elif inside:
            found[-1] += f"\n{line}"
            inside = line.startswith((" ", "\t")) or not line
    return found


def _in_force(machine: Machine, key: str, wanted: int, informed: set[int]) -> bool:
    """`informed` gets the workers that have said so. Each has to say it itself: one that the scheduler has left out for a moment takes
    no connection, and would serve the rows of before a moment later."""
    informed |= asyncio.run(_informed(machine, key, wanted))
    workers = machine.workers()
    return bool(workers) and informed.issuperset(workers)


async def _informed(machine: Machine, key: str, wanted: int, connections: int = 16) -> set[int]:
    """The workers that have answered one of several connections, opened at once so that more than one takes some, with that version."""
    streams = []
    try:
        streams = [await asyncio.open_connection("127.0.0.1", machine.port) for _ in range(connections)]
        await asyncio.sleep(0.02)  # let every worker take its share
        taken_by = {port: pid for pid in machine.workers() for port in clients_of(pid)}
        found = {}
        for _, writer in streams:
            writer.write(f"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n".encode())
        for reader, writer in streams:
            pid = taken_by.get(writer.get_extra_info("sockname")[1])
            if pid is not None:
                found[pid] = _version_in(await asyncio.wait_for(reader.read(), _ANSWER_S))
        return {pid for pid, version in found.items() if version >= wanted}
    except OSError:  # it does not listen, a worker went meanwhile, or does not answer: the next look sees more
        return set()
    finally:
        for _, writer in streams:
            writer.close()


def _version_in(answer: bytes) -> int:
    """0 = it names none."""
    name = b"x-llm-config-version: "
    lines = answer.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    return next((int(line[len(name) :]) for line in lines if line.startswith(name)), 0)


async def _ask_once(row: Row, port: int, sent: bytes, timeout_s: float) -> None:
    client = Client(port)
    await client.ask(row, sent, timeout_s)
    client.close()
