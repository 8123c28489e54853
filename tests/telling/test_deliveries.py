"""Claims, leases, waits and dead letters. Time is a number that the test holds, chance a seed."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from telling import deliveries
from telling.deliveries import Delivery
from telling.models import Webhook, WebhookTry
from telling.outcome import Outcome
from telling.signals import webhook_dead
from tests.telling.rows import NOW, a_team, a_webhook

pytestmark = pytest.mark.django_db
RNG = random.Random(1)
LEASE_S = 30.0
DOWN, UP = Outcome(500, "It answered 500."), Outcome(204)


def claim(at: float, most: int = 100, per_host: int = 5) -> list[Delivery]:
    return deliveries.claim(most, per_host, at, LEASE_S)


def settle(delivery: Delivery, outcome: Outcome, at: float) -> bool:
    return deliveries.settle(delivery, outcome, at, deliveries.MAX_TRIES, RNG)


def test_a_target_that_is_down_for_half_an_hour_loses_nothing_and_each_try_has_one_id() -> None:
    """G26, without the waiting."""
    team = a_team()
    waiting = {a_webhook(team).pk for _ in range(20)}
    now, ids, delivered = NOW, set[str](), dict[Any, int]()
    while len(delivered) < 20:
        for each in claim(now):
            ids.add(each.message_id)
            up = now >= NOW + 1800
            assert settle(each, UP if up else DOWN, now)
            if up:
                delivered[each.id] = delivered.get(each.id, 0) + 1
        now += 1
        assert now < NOW + 3 * 3600
    assert delivered == dict.fromkeys(waiting, 1)
    assert ids == {f"msg_{pk}" for pk in waiting}
    assert set(Webhook.objects.values_list("status", flat=True)) == {"delivered"}


def test_ten_tries_from_a_second_to_six_hours_and_then_it_is_dead() -> None:
    a_webhook()
    heard: list[Webhook] = []

    def dead(webhook: Webhook, **signal: Any) -> None:
        heard.append(webhook)

    webhook_dead.connect(dead)
    now, tried_at = NOW, []
    try:
        for _ in range(10):
            (each,) = claim(now)
            tried_at.append(now)
            assert settle(each, DOWN, now)
            now = Webhook.objects.get().next_at
    finally:
        webhook_dead.disconnect(dead)
    waits = [later - earlier for earlier, later in pairwise(tried_at)]
    assert all(0.8 * most <= wait <= most for wait, most in zip(waits, deliveries.WAITS_S, strict=True)), waits
    row = Webhook.objects.get()
    assert (row.status, row.tries, row.last_status, row.last_error) == ("dead", 10, 500, "It answered 500.")
    assert claim(now + 1e6) == []
    assert [each.number for each in WebhookTry.objects.all()] == list(range(1, 11))
    assert heard == [row]


def test_a_claim_is_on_lease_and_only_its_holder_says_what_came_of_it() -> None:
    a_webhook()
    (first,) = claim(NOW)
    assert claim(NOW + LEASE_S - 1) == []
    (second,) = claim(NOW + LEASE_S + 1)
    assert second.message_id == first.message_id
    assert not settle(first, UP, NOW + LEASE_S + 2)
    assert settle(second, DOWN, NOW + LEASE_S + 2)
    assert Webhook.objects.get().tries == 1


def test_what_a_stopping_process_holds_is_due_at_once() -> None:
    a_webhook()
    held = claim(NOW)
    deliveries.release(held)
    assert not settle(held[0], UP, NOW)
    assert [each.id for each in claim(NOW)] == [held[0].id]
    assert Webhook.objects.get().tries == 0


def test_one_dead_host_does_not_starve_the_others() -> None:
    team = a_team()
    for number in range(12):
        a_webhook(team, "https://dead.example.com/x", NOW + number)
    a_webhook(team, "https://well.example.com/x", NOW + 20)
    first = claim(NOW + 30)
    assert [each.url for each in first] == ["https://dead.example.com/x"] * 5 + ["https://well.example.com/x"]
    assert claim(NOW + 31) == [], "five of one host are on lease"
    settle(first[0], UP, NOW + 32)
    assert len(claim(NOW + 33)) == 1
    assert len(claim(NOW + 100, most=3)) == 3


def test_a_receiver_may_ask_for_a_longer_pause_up_to_six_hours() -> None:
    a_webhook()
    (each,) = claim(NOW)
    settle(each, Outcome(429, "It answered 429.", wait_s=100), NOW)
    assert Webhook.objects.get().next_at == NOW + 100
    (each,) = claim(NOW + 100)
    settle(each, Outcome(503, "It answered 503.", wait_s=1e8), NOW)
    assert Webhook.objects.get().next_at == NOW + 21_600


def test_what_no_other_try_can_help_is_dead_at_once() -> None:
    a_webhook()
    (each,) = claim(NOW)
    settle(each, Outcome(410, "It answered 410.", final=True), NOW)
    assert Webhook.objects.get().status == "dead"


def test_what_ended_long_ago_is_removed_and_what_waits_is_not() -> None:
    team = a_team()
    for _ in range(2):
        a_webhook(team)
    (first, *_) = claim(NOW)
    settle(first, UP, NOW)
    assert deliveries.prune(NOW + 29 * 86_400, 30) == 0
    assert deliveries.prune(NOW + 31 * 86_400, 30) == 1
    assert Webhook.objects.get().pk != first.id
