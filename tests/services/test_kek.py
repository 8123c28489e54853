"""KEKs at a service, without one: what is remembered, for how long, and what is said while it is away. Real ones: tests/kms."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from core.clock import FrozenClock
from core.errors import ConfigurationError
from core.secrets import CannotOpen, KekAway, KeyRing, LocalKek, Secret, sealed_under
from gateway.config.loader import load
from providers import kek, services
from providers.kek.remote import REST_S, RemoteKek
from providers.models import ProviderKey
from tests.gateway_config.rows import a_provider

DATA_KEY = bytes(range(32))
LOCAL = bytes(range(32, 64))


class Service:
    """Wraps with a prefix of its own, as services do, so that lengths differ; counts what it is asked."""

    def __init__(self, prefix: bytes = b"service:v7:") -> None:
        self.prefix = prefix
        self.asked = 0
        self.away = False
        self._kek = LocalKek(os.urandom(32))

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        self._ask()
        return self.prefix + self._kek.wrap(data_key, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        self._ask()
        return self._kek.unwrap(wrapped.removeprefix(self.prefix), context)

    def version(self, wrapped: bytes) -> str:
        return wrapped.decode(errors="replace").split(":")[1].removeprefix("v")

    def _ask(self) -> None:
        self.asked += 1
        if self.away:
            raise KekAway("the service does not answer")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def remote(service: Service, clock: FrozenClock) -> RemoteKek:
    return RemoteKek(service, ttl_s=60, max_keys=3, clock=clock)


def wrapped_elsewhere(service: Service, context: bytes = b"here") -> bytes:
    wrapped = service.wrap(DATA_KEY, context)
    service.asked = 0
    return wrapped


def test_what_was_opened_is_remembered_until_its_time_is_over(service: Service, remote: RemoteKek, clock: FrozenClock) -> None:
    wrapped = wrapped_elsewhere(service)
    assert [remote.unwrap(wrapped, b"here") for _ in range(3)] == [DATA_KEY] * 3
    assert service.asked == 1
    clock.advance(60)
    assert remote.unwrap(wrapped, b"here") == DATA_KEY
    assert service.asked == 2


def test_what_was_wrapped_is_remembered_too(service: Service, remote: RemoteKek) -> None:
    assert remote.unwrap(remote.wrap(DATA_KEY, b"here"), b"here") == DATA_KEY
    assert service.asked == 1


def test_what_is_remembered_opens_nothing_elsewhere(service: Service, remote: RemoteKek) -> None:
    wrapped = remote.wrap(DATA_KEY, b"here")
    with pytest.raises(CannotOpen, match="does not belong"):
        remote.unwrap(wrapped, b"there")


def test_the_one_used_longest_ago_makes_way(service: Service, remote: RemoteKek) -> None:
    wrapped = [wrapped_elsewhere(service, b"%d" % number) for number in range(4)]
    for number in (0, 1, 2, 0, 3):
        remote.unwrap(wrapped[number], b"%d" % number)
    assert service.asked == 4
    remote.unwrap(wrapped[0], b"0")
    assert service.asked == 4
    remote.unwrap(wrapped[1], b"1")
    assert service.asked == 5


def test_nothing_is_remembered_where_nothing_is_to_be(service: Service, clock: FrozenClock) -> None:
    for remote in (RemoteKek(service, ttl_s=0, max_keys=3, clock=clock), RemoteKek(service, ttl_s=60, max_keys=0, clock=clock)):
        wrapped = wrapped_elsewhere(service)
        remote.unwrap(wrapped, b"here")
        remote.unwrap(wrapped, b"here")
        assert service.asked == 2


def test_who_is_away_is_left_alone_for_a_while(service: Service, remote: RemoteKek, clock: FrozenClock) -> None:
    wrapped = wrapped_elsewhere(service)
    service.away = True
    for _ in range(10):
        with pytest.raises(KekAway, match="does not answer"):
            remote.unwrap(wrapped, b"here")
    assert service.asked == 1
    service.away = False
    clock.advance(REST_S)
    assert remote.unwrap(wrapped, b"here") == DATA_KEY


def test_a_secret_that_does_not_open_is_no_reason_to_leave_the_service_alone(service: Service, remote: RemoteKek) -> None:
    wrapped = wrapped_elsewhere(service)
    with pytest.raises(CannotOpen, match="does not belong"):
        remote.unwrap(wrapped, b"there")
    assert remote.unwrap(wrapped, b"here") == DATA_KEY


def test_a_token_says_how_long_what_was_wrapped_is(service: Service) -> None:
    ring = KeyRing({1: LOCAL, 2: service}, current=2)
    token = ring.seal("sk-plain", "here")
    assert (token[0], sealed_under(token), ring.version(token)) == (2, 2, "7")
    assert ring.open(token, "here") == Secret("sk-plain")
    back = KeyRing({2: service, 3: LOCAL}, current=3).reseal(token, "here")
    assert (back[0], sealed_under(back)) == (1, 3)
    assert KeyRing({3: LOCAL}, current=3).open(back, "here") == Secret("sk-plain")
    assert KeyRing({3: LOCAL}, current=3).version(token) == "", "nobody is asked about a key that is not configured"


def test_any_changed_byte_of_such_a_token_is_noticed(service: Service) -> None:
    ring = KeyRing({1: LOCAL, 2: service}, current=2)
    token = ring.seal("sk-plain", "here")
    prefix = range(4, 4 + len(service.prefix))  # no matter to this service
    for position in set(range(len(token))) - set(prefix):
        changed = bytearray(token)
        changed[position] ^= 1
        with pytest.raises(CannotOpen):
            ring.open(bytes(changed), "here")
    for size in range(len(token)):
        with pytest.raises(CannotOpen):
            ring.open(token[:size], "here")


@pytest.fixture
def ring(service: Service, monkeypatch: pytest.MonkeyPatch) -> KeyRing:
    made = KeyRing({2: service}, current=2)
    monkeypatch.setattr("providers.models.key_ring", lambda: made)
    return made


@pytest.mark.django_db
def test_a_key_is_not_stored_while_the_service_is_away_and_that_is_said(service: Service, ring: KeyRing) -> None:
    provider = a_provider()
    key = services.add_key(provider, "sk-vendor-secret-0001")
    service.away = True
    for attempt in (lambda: services.add_key(provider, "sk-vendor-secret-0002"), lambda: services.rotate_key(key, "sk-vendor-secret-0003")):
        with pytest.raises(ValidationError) as caught:
            attempt()
        assert caught.value.message_dict == {"api_key": ["The key cannot be stored now: the service does not answer. Nothing was changed."]}
    service.away = False
    assert ProviderKey.objects.get().open() == Secret("sk-vendor-secret-0001")


@pytest.mark.django_db
def test_what_is_tried_again_and_again_is_said_once(service: Service, ring: KeyRing, caplog: pytest.LogCaptureFixture) -> None:
    services.add_key(a_provider(), "sk-vendor-secret-0001")
    service.away = True
    snapshot = load(None)
    for _ in range(3):
        snapshot = load(snapshot)
    assert snapshot.is_partial
    assert [record.getMessage().count("the service does not answer") for record in caplog.records] == [1]
    service.away = False
    assert load(snapshot).alarms == ()


def test_a_library_that_is_not_installed_is_said(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.VAULT_ADDR, settings.VAULT_TOKEN, settings.AWS_REGION = "http://127.0.0.1:1", lambda: "t", "eu-central-1"
    for library, reference in (("hvac", "vault:k"), ("boto3", "aws:k")):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ConfigurationError, match=f"needs a library that is not installed \\({library}\\)"):
            kek.build(reference)
