"""One try, over a real connection on loopback: what is sent, and how an answer is judged."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from telling import signing
from telling.deliveries import Delivery
from telling.delivery import Sender
from telling.outcome import Outcome
from tests.telling.receiver import Receiver

SECRET = signing.new_secret()
BODY = b'{"event_type":"completed"}'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


async def send(url: str, port: int, keys: list[str] | None = None, timeout_s: float = 30) -> Outcome:
    sender = Sender([("127.0.0.1/32", port)], timeout_s, time.time)
    try:
        return await sender.send(Delivery("1", "msg_1", None, url, BODY, 0, 1), [SECRET] if keys is None else keys)
    finally:
        await sender.close()


async def test_what_is_sent_can_be_verified(receiver: Receiver) -> None:
    outcome = await send(receiver.url(), receiver.port)
    assert (outcome.status_code, outcome.error) == (204, "")
    (heard,) = receiver.heard
    assert signing.verify([SECRET], heard.headers, heard.body, time.time()) == "msg_1"
    assert heard.headers["content-type"] == "application/json"
    assert heard.body == BODY


@pytest.mark.parametrize(("how", "final"), [("500", False), ("404", False), ("429", False), ("410", True)])
async def test_what_is_no_success_is_a_failure(receiver: Receiver, how: str, final: bool) -> None:
    outcome = await send(receiver.url(how), receiver.port)
    assert (outcome.status_code, outcome.error, outcome.final) == (int(how), f"It answered {how}.", final)


async def test_a_redirect_is_a_failure_and_is_not_followed(receiver: Receiver) -> None:
    other = Receiver()
    try:
        receiver.redirect_to = other.url()
        outcome = await send(receiver.url("redirect"), receiver.port)
        assert (outcome.status_code, outcome.final) == (307, False)
        assert "redirect" in outcome.error
        assert other.heard == []
    finally:
        other.close()


async def test_a_receiver_that_does_not_answer_is_given_up(receiver: Receiver) -> None:
    outcome = await send(receiver.url("stall"), receiver.port, timeout_s=0.3)
    assert (outcome.status_code, outcome.error, outcome.final) == (None, "No answer within 0.3 s.", False)


async def test_an_address_that_is_not_allowed_is_not_connected_to(receiver: Receiver) -> None:
    outcome = await send(receiver.url(), receiver.port + 1)
    assert outcome.final
    assert "WEBHOOK_ALLOW" in outcome.error
    assert receiver.heard == []


async def test_a_receiver_that_is_not_there_is_tried_again(receiver: Receiver) -> None:
    receiver.close()
    outcome = await send(receiver.url(), receiver.port)
    assert (outcome.error, outcome.final) == ("It cannot be reached.", False)


async def test_nothing_is_sent_unsigned(receiver: Receiver) -> None:
    outcome = await send(receiver.url(), receiver.port, keys=[])
    assert outcome.final
    assert "no signing secret" in outcome.error
    assert receiver.heard == []
