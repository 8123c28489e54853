"""`rotate_kek`: every secret comes under the new key, none is lost, and what does not open is said. Killed: test_rotate_kek_live."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.checks import Error
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, models, transaction

from core.secrets import CannotOpen, sealed_under
from gateway.config.loader import load
from gateway.config.publisher import current_version
from providers import sealing, services
from providers.fields import EncryptedField
from providers.models import Provider, ProviderKey
from providers.vault import key_ring
from tests.gateway_config.rows import a_provider, a_provider_key

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
Keks = Callable[[dict[int, bytes]], None]
pytestmark = pytest.mark.django_db


@pytest.fixture
def keks(settings: Any) -> Iterator[Keks]:
    """Sets the key ring; it begins with the old key alone."""

    def put(keys: dict[int, bytes]) -> None:
        settings.KEY_ENCRYPTION_KEYS = keys
        key_ring.cache_clear()

    put({1: OLD})
    yield put
    key_ring.cache_clear()


def run(*options: str) -> tuple[str, str, str]:
    """What it says, what it complains of, and why it ends with 1 ("" where it ends with 0)."""
    out, err, failure = io.StringIO(), io.StringIO(), ""
    try:
        call_command("rotate_kek", *options, stdout=out, stderr=err)
    except CommandError as error:
        failure = str(error)
    return out.getvalue(), err.getvalue(), failure


def some_keys(count: int) -> list[ProviderKey]:
    provider = a_provider()
    return [a_provider_key(provider, f"sk-vendor-secret-{number:04}") for number in range(count)]


def ids() -> list[int]:
    return sorted(sealed_under(bytes(secret)) for secret in ProviderKey.objects.values_list("secret", flat=True))


def damage(key: ProviderKey, position: int = -1) -> None:
    secret = bytearray(key.secret)
    secret[position] ^= 1
    ProviderKey.objects.filter(pk=key.pk).update(secret=bytes(secret))


def test_every_secret_comes_under_the_new_key_and_opens_without_the_old_one(keks: Keks) -> None:
    keys = some_keys(7)
    keks({1: OLD, 2: NEW})
    said, complained, failure = run("--batch", "3")
    assert (complained, failure) == ("", "")
    assert said.splitlines()[:4] == [
        "0 re-sealed of 7 secrets; key 1: 7, key 2 (current): 0.",
        "3 re-sealed of 7 secrets; key 1: 4, key 2 (current): 3.",
        "6 re-sealed of 7 secrets; key 1: 1, key 2 (current): 6.",
        "7 re-sealed of 7 secrets; key 1: 0, key 2 (current): 7.",
    ]
    assert "nothing is left on key 1. You may remove it from KEY_ENCRYPTION_KEYS" in said.splitlines()[4]
    keks({2: NEW})
    assert [ProviderKey.objects.get(pk=key.pk).open().reveal() for key in keys] == [f"sk-vendor-secret-{number:04}" for number in range(7)]


def test_nothing_but_the_sealed_column_changes(keks: Keks) -> None:
    (key,) = some_keys(1)
    before = ProviderKey.objects.values().get()
    keks({1: OLD, 2: NEW})
    run()
    after = ProviderKey.objects.values().get()
    assert {name for name in before if before[name] != after[name]} == {"secret"}
    assert Provider.objects.get().updated_at == key.provider.updated_at


def test_a_second_run_changes_nothing(keks: Keks) -> None:
    some_keys(3)
    keks({1: OLD, 2: NEW})
    run()
    version, secrets = current_version(), list(ProviderKey.objects.values_list("secret"))
    said, _, failure = run()
    assert said.splitlines()[0] == "0 re-sealed of 3 secrets; key 1: 0, key 2 (current): 3."
    assert (failure, current_version(), list(ProviderKey.objects.values_list("secret"))) == ("", version, secrets)


def test_without_a_new_key_it_says_what_to_do_first(keks: Keks) -> None:
    some_keys(1)
    assert "first add a key with a higher id to KEY_ENCRYPTION_KEYS" in run()[0]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="on SQLite the version counts rows")
def test_a_batch_raises_the_version_once(keks: Keks) -> None:
    some_keys(6)
    keks({1: OLD, 2: NEW})
    before = current_version()
    run("--batch", "2")
    assert current_version() == before + 3


def test_a_batch_is_a_transaction(keks: Keks, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written before a failure in the same batch is not there afterwards; earlier batches are."""
    some_keys(4)
    keks({1: OLD, 2: NEW})
    runs = sealing.reseal_all(key_ring(), 2)
    assert [next(runs).resealed, next(runs).resealed] == [0, 2]
    real = models.QuerySet.bulk_update

    def fails(self: Any, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(models.QuerySet, "bulk_update", fails)
    with pytest.raises(KeyboardInterrupt), transaction.atomic():
        next(runs)
    assert ids() == [1, 1, 2, 2]


def test_a_dry_run_changes_nothing_and_names_what_will_not_open(keks: Keks) -> None:
    keys = some_keys(3)
    keks({1: OLD, 2: NEW})
    version = current_version()
    said, complained, failure = run("--dry-run")
    assert said.splitlines() == ["3 secrets; key 1: 3, key 2 (current): 0.", "This was a dry run: nothing was changed."]
    assert (complained, failure, current_version(), ids()) == ("", "", version, [1, 1, 1])
    damage(keys[1])
    _, complained, failure = run("--dry-run")
    assert "Provider key openai-main …0001: the secret does not belong" in complained
    assert "Keep in KEY_ENCRYPTION_KEYS, besides 2: 1." in failure


def test_what_does_not_open_is_named_and_does_not_stop_the_others(keks: Keks) -> None:
    keys = some_keys(5)
    damage(keys[0])
    damage(keys[2], position=0)  # its version
    keks({1: OLD, 3: NEW})
    a_provider_key(keys[0].provider, "sk-vendor-secret-lost")
    keks({1: OLD, 2: NEW})
    said, complained, failure = run("--batch", "2")
    assert said.splitlines()[-1] == "3 re-sealed of 6 secrets; damaged: 1, key 1: 1, key 2 (current): 3, key 3 (not configured): 1."
    assert sorted(complained.splitlines()) == [
        "Provider key openai-main …0000: the secret does not belong to this row and address, or was altered; enter the key again.",
        "Provider key openai-main …0002: the stored secret is damaged; enter the key again.",
        "Provider key openai-main …lost: the secret was sealed with key-encryption key 3, which is not configured; "
        "add key 3 to KEY_ENCRYPTION_KEYS and restart, or enter the key again.",
    ]
    assert failure == "3 secrets do not open; what to do stands beside each. Keep in KEY_ENCRYPTION_KEYS, besides 2: 1."
    assert "may remove" not in said
    for key in ProviderKey.objects.all():  # what it said to do
        services.rotate_key(key, "sk-vendor-secret-anew")
    assert run()[1:] == ("", "")


def test_a_secret_that_comes_in_under_the_old_key_meanwhile_is_found(keks: Keks) -> None:
    some_keys(2)
    keks({1: OLD, 2: NEW})
    runs = sealing.reseal_all(key_ring())
    next(runs)
    keks({1: OLD})
    late = a_provider_key(Provider.objects.get(), "sk-vendor-secret-late")
    *_, last = runs
    keks({2: NEW})
    assert (last.resealed, last.census.stale_rows, ids()) == (3, 0, [2, 2, 2])
    assert ProviderKey.objects.get(pk=late.pk).open().reveal() == "sk-vendor-secret-late"


def test_a_secret_entered_or_removed_meanwhile_is_left_as_it_is(keks: Keks) -> None:
    keys = some_keys(3)
    keks({1: OLD, 2: NEW})
    runs = sealing.reseal_all(key_ring())
    next(runs)
    services.rotate_key(keys[0], "sk-vendor-secret-anew")
    keys[1].delete()
    entered = bytes(ProviderKey.objects.get(pk=keys[0].pk).secret)
    *_, last = runs
    assert (last.resealed, last.problems, ids()) == (1, {}, [2, 2])
    assert bytes(ProviderKey.objects.get(pk=keys[0].pk).secret) == entered


def test_rows_that_somebody_holds_for_long_are_said_and_not_waited_for_for_ever(keks: Keks, monkeypatch: pytest.MonkeyPatch) -> None:
    some_keys(2)
    keks({1: OLD, 2: NEW})
    naps: list[float] = []
    monkeypatch.setattr(sealing, "_locked", lambda rows: rows.none())
    *_, last = sealing.reseal_all(key_ring(), sleep=naps.append)
    assert (last.census.stale_rows, sum(naps)) == (2, pytest.approx(10))
    monkeypatch.setattr(sealing, "_IDLE_PASSES", 1)
    said, _, failure = run()
    assert failure == "2 secrets are held by another transaction: run this command again. Keep in KEY_ENCRYPTION_KEYS, besides 2: 1."
    assert "may remove" not in said


@pytest.mark.parametrize("batch", ["0", "2001", "-1", "many", "1.5"])
def test_a_batch_has_bounds(batch: str) -> None:
    with pytest.raises(CommandError, match="from 1 to 2000"):
        call_command("rotate_kek", f"--batch={batch}")


def test_a_process_without_the_new_key_keeps_its_last_good_settings_and_says_so(keks: Keks) -> None:
    (key,) = some_keys(1)
    good = load(None)
    keks({1: OLD, 2: NEW})
    run()
    assert load(good).alarms == ()
    keks({1: OLD})
    kept, started_now = load(good), load(None)
    assert kept.providers == good.providers
    assert kept.providers[str(key.provider_id)].keys[0].secret.reveal() == "sk-vendor-secret-0000"
    for snapshot, meaning in ((kept, "its last good settings stay in force"), (started_now, "it is left out")):
        (alarm,) = snapshot.alarms
        assert "Provider openai-main" in alarm
        assert "key-encryption key 2, which is not configured; add key 2 to KEY_ENCRYPTION_KEYS and restart" in alarm
        assert meaning in alarm
    assert started_now.providers == {}
    with pytest.raises(CannotOpen, match="key 2"):
        ProviderKey.objects.get().open()


def test_every_installed_sealed_column_is_found_and_says_what_it_is_bound_to() -> None:
    columns = sealing.columns()
    assert sealing.Column(ProviderKey, "secret") in columns
    assert all(column.model._meta.get_field(column.name).check() == [] for column in columns)


def test_a_sealed_column_that_could_not_be_sealed_anew_is_a_failed_check() -> None:
    class Unbound(models.Model):
        secret = EncryptedField()

        class Meta:
            app_label = "nowhere"
            managed = False

    (error,) = Unbound._meta.get_field("secret").check()
    assert isinstance(error, Error)
    assert error.id == "providers.E004"
