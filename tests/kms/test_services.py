"""Vault's transit engine and AWS KMS as keepers of KEKs: what they wrap opens only where it belongs, and what goes wrong is a sentence."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from core.errors import ConfigurationError
from core.secrets import NOT_ITS_PLACE, CannotOpen, Kek, KekAway, Secret
from gateway.config.loader import load
from providers import kek
from providers.models import ProviderKey
from providers.vault import key_ring
from tests.gateway_config.rows import a_provider, a_provider_key
from tests.kms.conftest import CREDENTIALS, TOKEN, Service, free_port

DATA_KEY = bytes(range(32))
HERE, ELSEWHERE = b"providers_providerkey:7:secret:https://api.openai.com:443", b"providers_providerkey:8:secret:https://api.openai.com:443"
PLAIN = "sk-vendor-planted-secret-0001"


def test_what_is_wrapped_unwraps_only_in_its_place(bare: Kek) -> None:
    wrapped = bare.wrap(DATA_KEY, HERE)
    assert bare.unwrap(wrapped, HERE) == DATA_KEY
    assert DATA_KEY not in wrapped
    assert base64.b64encode(DATA_KEY) not in wrapped
    with pytest.raises(CannotOpen, match=NOT_ITS_PLACE) as caught:
        bare.unwrap(wrapped, ELSEWHERE)
    assert not isinstance(caught.value, KekAway)


def test_what_was_altered_does_not_unwrap(bare: Kek) -> None:
    wrapped = bytearray(bare.wrap(DATA_KEY, HERE))
    wrapped[-6] = ord("A") if wrapped[-6] != ord("A") else ord("B")
    with pytest.raises(CannotOpen, match=NOT_ITS_PLACE) as caught:
        bare.unwrap(bytes(wrapped), HERE)
    assert not isinstance(caught.value, KekAway)


def test_a_secret_sealed_under_it_opens(service: Service, configured: Any) -> None:
    configured({1: bytes(32), 2: service.reference}, service)
    token = key_ring().seal(PLAIN, HERE.decode())
    assert key_ring().open(token, HERE.decode()) == Secret(PLAIN)
    key_ring.cache_clear()
    assert key_ring().open(token, HERE.decode()) == Secret(PLAIN)
    with pytest.raises(CannotOpen, match=NOT_ITS_PLACE):
        key_ring().open(token, ELSEWHERE.decode())


def test_vault_says_which_version_has_wrapped(vault: Service, configured: Any) -> None:
    configured({2: vault.reference}, vault)
    ring = key_ring()
    before = ring.seal(PLAIN, "here")
    vault.admin.secrets.transit.rotate_key("llmcontrol")
    after = ring.seal(PLAIN, "here")
    assert int(ring.version(after)) == int(ring.version(before)) + 1
    assert ring.open(before, "here") == ring.open(after, "here") == Secret(PLAIN)


def test_a_key_that_is_not_there_is_said(service: Service, configured: Any) -> None:
    kind = service.reference.partition(":")[0]
    configured({2: f"{kind}:nowhere"}, service)
    with pytest.raises(KekAway, match="key-encryption key nowhere is at"):
        kek.build(f"{kind}:nowhere").unwrap(b"vault:v1:" + base64.b64encode(bytes(60)), HERE)


def test_a_service_that_is_away_is_said_once_and_not_asked_again_at_once(service: Service, configured: Any) -> None:
    configured({2: service.reference}, service, KEK_TIMEOUT_S=0.3)
    ring = key_ring()
    token = ring.seal(PLAIN, "here")
    other = key_ring().seal(PLAIN, "there")
    key_ring.cache_clear()
    ring = key_ring()
    ring.open(token, "here")
    service.freeze()
    try:
        with pytest.raises(KekAway, match="does not answer") as caught:
            ring.open(other, "there")
        for secret in (TOKEN, *CREDENTIALS.values(), PLAIN):
            assert secret not in str(caught.value)
        began_at = time.monotonic()
        for _ in range(100):
            with pytest.raises(KekAway, match="does not answer"):
                ring.open(other, "there")
        assert time.monotonic() - began_at < 0.3, "each of them waited"
        assert ring.open(token, "here") == Secret(PLAIN), "what was opened lately needs no service"
    finally:
        service.thaw()


def test_nobody_there_is_said(service: Service, configured: Any) -> None:
    configured({2: service.reference}, service)
    configured({2: service.reference}, VAULT_ADDR=f"http://127.0.0.1:{(port := free_port())}", AWS_KMS_ENDPOINT=f"http://127.0.0.1:{port}")
    with pytest.raises(KekAway, match="does not answer"):
        key_ring().seal(PLAIN, "here")


def test_a_refused_token_is_said_and_a_renewed_one_is_taken(vault: Service, configured: Any) -> None:
    given = "expired"
    configured({2: vault.reference}, vault, VAULT_TOKEN=lambda: given)
    inner = kek.build(vault.reference)._kek  # type: ignore[attr-defined]
    with pytest.raises(KekAway, match="refuses our token: give VAULT_TOKEN a valid one") as caught:
        inner.wrap(DATA_KEY, HERE)
    assert "expired" not in str(caught.value)
    given = TOKEN
    assert inner.unwrap(inner.wrap(DATA_KEY, HERE), HERE) == DATA_KEY


def test_a_token_may_do_no_more_than_encrypt_and_decrypt(vault: Service, configured: Any) -> None:
    rules = "\n".join(f'path "transit/{verb}/llmcontrol" {{ capabilities = ["update"] }}' for verb in ("encrypt", "decrypt"))
    vault.admin.sys.create_or_update_policy("llmcontrol", rules)
    token = vault.admin.auth.token.create(policies=["llmcontrol"])["auth"]["client_token"]
    configured({2: vault.reference}, vault, VAULT_TOKEN=lambda: token)
    assert key_ring().open(key_ring().seal(PLAIN, "here"), "here") == Secret(PLAIN)


def test_a_version_that_vault_was_told_to_open_no_more_is_said(vault: Service, configured: Any) -> None:
    configured({2: vault.reference}, vault)
    inner = kek.build(vault.reference)._kek  # type: ignore[attr-defined]
    old = inner.wrap(DATA_KEY, HERE)
    vault.admin.secrets.transit.rotate_key("llmcontrol")
    vault.admin.secrets.transit.update_key_configuration("llmcontrol", min_decryption_version=int(inner.version(old)) + 1)
    with pytest.raises(KekAway, match="refuses: ciphertext or signature version is disallowed by policy"):
        inner.unwrap(old, HERE)


@pytest.mark.parametrize(
    ("keys", "lacking", "sentence"),
    [
        ("vault:k", {"VAULT_ADDR": ""}, "set VAULT_ADDR"),
        ("vault:k", {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": lambda: ""}, "set VAULT_TOKEN"),
        ("aws:k", {"AWS_REGION": ""}, "set AWS_REGION"),
    ],
)
def test_a_missing_setting_is_named(keys: str, lacking: dict[str, Any], sentence: str, configured: Any) -> None:
    configured({2: keys}, **lacking)
    with pytest.raises(ConfigurationError, match=sentence):
        key_ring()


@pytest.mark.django_db
def test_a_gateway_keeps_what_it_knows_while_the_service_is_away_and_reads_again(service: Service, configured: Any) -> None:
    configured({2: service.reference}, service, KEK_TIMEOUT_S=0.3)
    key = a_provider_key(a_provider(), PLAIN)
    good = load(None)
    assert (good.alarms, good.is_partial) == ((), False)
    key_ring.cache_clear()  # as after KEK_CACHE_S
    service.freeze()
    try:
        kept, started_now = load(good), load(None)
    finally:
        service.thaw()
    assert kept.providers == good.providers
    assert started_now.providers == {}
    for snapshot, meaning in ((kept, "its last good settings stay in force"), (started_now, "it is left out")):
        (alarm,) = snapshot.alarms
        assert alarm.startswith("Provider openai-main cannot be used as it is (key-encryption key")
        assert meaning in alarm
        assert "It is tried again every few seconds" in alarm
        assert snapshot.is_partial
    key_ring.cache_clear()  # as after REST_S
    again = load(started_now)
    assert (again.alarms, again.is_partial, again.providers.keys()) == ((), False, good.providers.keys())
    assert ProviderKey.objects.get(pk=key.pk).open() == Secret(PLAIN)


@pytest.mark.django_db
def test_with_the_data_keys_known_the_service_is_not_asked(service: Service, configured: Any) -> None:
    configured({2: service.reference}, service, KEK_TIMEOUT_S=0.3)
    provider = a_provider()
    for number in range(5):
        a_provider_key(provider, f"{PLAIN}{number}")
    good = load(None)
    service.freeze()
    try:
        assert load(None).providers == good.providers
    finally:
        service.thaw()
