"""F44, F45: webhook targets that fail, hang, flap, refuse or send elsewhere, beside one that is well."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.control import unique
from tests.faults.history import quantile_of
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.processes import until
from tests.faults.stage import Stage
from tests.faults.test_tasks import submit, task
from tests.telling.receiver import Heard, Receiver

SICK = ("500", "stall", "flaky", "refused")
TRIES, PER_HOST, TIMEOUT_S = 3, 5, 2.0
WITHIN_S = 300.0
REDIRECTS = ("301", "302", "303", "307", "308")
SETTINGS = {
    "LLM_WEBHOOK_TRIES": str(TRIES),
    "LLM_WEBHOOK_PER_HOST": str(PER_HOST),
    "LLM_WEBHOOK_TIMEOUT_S": str(TIMEOUT_S),
    "LLM_WEBHOOK_POLL_S": "0.1",
}


class Targets:
    """A receiver, and so a host and port, for each way to be, and as many that are well. The one that refuses has let go of its port."""

    def __init__(self) -> None:
        self.well = Receiver("ok")
        self.others = [Receiver("ok") for _ in SICK]
        self.sick = {how: Receiver("" if how == "refused" else how) for how in SICK}
        self.sick["refused"].close()

    def all_well(self) -> list[str]:
        return [each.url("ok") for each in (self.well, *self.others)]

    def urls(self) -> dict[str, str]:
        return {"well": self.well.url("ok"), **{how: each.url(how) for how, each in self.sick.items()}}

    def mend(self) -> None:
        self.sick["refused"] = Receiver("ok", self.sick["refused"].port)
        for receiver in self.sick.values():
            receiver.how = "ok"

    def heard(self) -> list[Heard]:
        return [heard for receiver in self._all() for heard in receiver.of("/")]

    def close(self) -> None:
        for receiver in self._all():
            receiver.close()

    def _all(self) -> list[Receiver]:
        return [self.well, *self.others, *self.sick.values()]


@pytest.fixture
def targets() -> Iterator[Targets]:
    made = Targets()
    yield made
    made.close()


class Teller:
    """Submits tasks of a team that has a signing secret."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._alias = stage.model("ok@tokens=1")
        made = stage.api_key(scopes=["tasks"])
        self._key = made["key"]
        stage.secrets.append(stage.control.call("POST", "/api/v1/webhook-secrets", {"team": made["team"]})["secret"])

    def submit(self, urls: list[str]) -> list[str]:
        asked = [{**task(self._alias, unique("hi")), "callback_url": url} for url in urls]
        answer = submit(self._stage, self._key, asked)
        assert answer.status == 202, answer.body
        return [accepted["task_id"] for accepted in answer.json["tasks"]]

    def statuses(self) -> Counter[str]:
        return Counter(dict(self._stage.database.rows("SELECT status, COUNT(*) FROM telling_webhook GROUP BY status")))

    def webhooks(self, status: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        path: str | None = f"/api/v1/webhooks?status={status}&page_size=200"
        while path:
            page = self._stage.control.call("GET", path)
            found += page["results"]
            path = page["next"] and page["next"].removeprefix(self._stage.control.base_url)
        return found

    def settled(self, count: int) -> bool:
        """So many webhooks were delivered or are dead letters, and no other one is there."""
        statuses = self.statuses()
        return statuses["delivered"] + statuses["dead"] == count == sum(statuses.values())


def task_of(heard: Heard) -> str:
    return str(json.loads(heard.body)["task_id"])


def delays_s(heard: list[Heard]) -> list[float]:
    """From the end of each task to the moment at which its target first heard of it."""
    first: dict[str, Heard] = {}
    for each in sorted(heard, key=lambda each: each.at):
        first.setdefault(task_of(each), each)
    return [each.at - datetime.fromisoformat(json.loads(each.body)["timestamp"]).timestamp() for each in first.values()]


def most_at_once(heard: list[Heard]) -> int:
    """Of a target that answers nothing: each try lasts as long as the timeout. Half of it is counted, since a busy machine hears late."""
    return max((sum(0 <= later.at - each.at < TIMEOUT_S / 2 for later in heard) for each in heard), default=0)


@pytest.mark.short("both")
def test_f44_sick_targets_beside_a_healthy_one(new_stage: Callable[..., Stage], judge: Judge, size: LoadSize, targets: Targets) -> None:
    """The sick ones are mended once their tries are used up; dead letters are then sent again."""
    stage = new_stage(env={**SETTINGS, "WEBHOOK_ALLOW": "127.0.0.0/8:*"})
    teller, urls = Teller(stage), targets.urls()
    each = 100 if size.seconds > 30 else 10
    usual_ids = set(teller.submit(targets.all_well() * each))  # as many as later, so that only their health differs
    until(lambda: teller.settled(len(usual_ids)), "the baseline is delivered", timeout_s=WITHIN_S, every_s=0.1)
    baseline_s = delays_s(targets.well.of("/"))

    submitted = set(teller.submit([url for _ in range(each) for url in urls.values()]))
    until(lambda: teller.settled(len(usual_ids) + len(submitted)), "all are delivered or dead", timeout_s=WITHIN_S, every_s=0.1)
    met_s = delays_s([heard for heard in targets.well.of("/") if task_of(heard) in submitted])
    at_once = most_at_once(targets.sick["stall"].of("/"))
    dead = teller.statuses()["dead"]
    listed = teller.webhooks("dead")
    targets.mend()
    for row in listed:
        stage.control.call("POST", f"/api/v1/webhooks/{row['id']}/replay")
    until(lambda: teller.statuses() == {"delivered": len(usual_ids) + len(submitted)}, "all are delivered", timeout_s=WITHIN_S, every_s=0.1)

    heard = targets.heard()
    delivered = {task_of(one) for one in heard if 200 <= one.status < 300}
    message_ids: dict[str, set[str]] = defaultdict(set)
    for one in heard:
        message_ids[task_of(one)].add(one.id)
    iso = quantile_of(met_s, 0.99) / quantile_of(baseline_s, 0.99)
    judge("F44", "events lost", len((usual_ids | submitted) - delivered), equals=0)
    judge("F44", "most webhook-ids of one event", max(len(ids) for ids in message_ids.values()), equals=1)
    judge("F44", "dead letters that are not listed", dead - len(listed), equals=0)
    given_up = Counter(row["url"] for row in listed)
    hopeless = [given_up[urls[how]] for how in SICK if how != "flaky"]
    judge("F44", "dead letters of the three that never answer well", sum(hopeless), equals=3 * each)
    judge("F44", "tries at once at a host that hangs", at_once, at_most=PER_HOST)
    judge("F44", "ISO of the healthy target", iso, at_most=2, unit="×", timed=True, why=f"{sorted(met_s)} beside {sorted(baseline_s)}")


@pytest.mark.short("both")
def test_f45_a_redirect_is_not_followed(new_stage: Callable[..., Stage], judge: Judge) -> None:
    """Elsewhere is the canary, which any call fails the stage of; only the receiver's own port may be called."""
    receiver = Receiver()
    try:
        stage = new_stage(env={**SETTINGS, "LLM_WEBHOOK_TRIES": "2", "WEBHOOK_ALLOW": f"127.0.0.1/32:{receiver.port}"})
        receiver.redirect_to = f"{stage.canary.base_url}/x"
        teller = Teller(stage)
        teller.submit([receiver.url(status) for status in REDIRECTS])
        until(lambda: teller.settled(len(REDIRECTS)), "all have been given up", timeout_s=WITHIN_S, every_s=0.1)
        tried = Counter(heard.path.rpartition("/")[2] for heard in receiver.of("/"))
        stats = stage.canary.stats()
        judge("F45", "calls of where it leads", stats["total"] + len(stats["unexpected"] or ()), equals=0)
        judge("F45", "recorded as a redirect, of five", sum("redirect" in row["last_error"] for row in teller.webhooks("dead")), equals=5)
        judge("F45", "tries at each", max(tried.values()), equals=2)
    finally:
        receiver.close()
