"""Providers and their keys: validated whole, sealed for one address."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.core.exceptions import ValidationError

from core.errors import ConfigurationError
from core.secrets import CannotOpen
from providers import services
from providers.models import Provider, ProviderKey

KEY = "sk-vendor-key-0123456789abcdef"
OTHER = "sk-vendor-key-fedcba9876543210"
pytestmark = pytest.mark.django_db


def openai(**fields: object) -> Provider:
    return services.create_provider(**{"name": "main", "provider_type": "openai", "secrets": [KEY], **fields})


def opened(provider: Provider) -> list[str]:
    return [key.open().reveal() for key in ProviderKey.objects.filter(provider=provider).order_by("created_at")]


def test_create_seals_each_key() -> None:
    provider = openai(secrets=[KEY, OTHER], options={"organization": "org-1"}, max_concurrency=7)
    assert opened(provider) == [KEY, OTHER]
    assert [key.last4 for key in provider.keys.all()] == ["cdef", "3210"]
    assert all(KEY.encode() not in bytes(key.secret) for key in provider.keys.all())
    assert (provider.max_concurrency, provider.options) == (7, {"organization": "org-1"})


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"provider_type": "telepathy"}, "provider_type"),
        ({"name": ""}, "name"),
        ({"name": "white space"}, "name"),
        ({"base_url": "ftp://vendor.example/v1"}, "base_url"),
        ({"base_url": "vendor.example/v1"}, "base_url"),
        ({"base_url": "https://user:pass@vendor.example/v1"}, "base_url"),
        ({"base_url": "https://vendor.example/v1?key=1"}, "base_url"),
        ({"base_url": "https://vendor.example:99999/v1"}, "base_url"),
        ({"base_url": "https://[::1"}, "base_url"),
        ({"base_url": "https://vendor.example/\nv1"}, "base_url"),
        ({"provider_type": "openai_compatible"}, "base_url"),
        ({"options": {"organisation": "org-1"}}, "options"),
        ({"options": ["organization"]}, "options"),
        ({"provider_type": "custom", "base_url": "https://vendor.example"}, "options"),
        ({"rate_capacity": 5.0}, "rate_refill_per_s"),
        ({"rate_capacity": math.nan}, "rate_capacity"),
        ({"idle_timeout_s": math.inf}, "idle_timeout_s"),
        ({"breaker_fail_max": 0}, "breaker_fail_max"),
        ({"rate_type": "leaky"}, "rate_type"),
        ({"rate_type": "sliding_window", "rate_capacity": 2.5, "rate_refill_per_s": 1}, "rate_capacity"),
        ({"rate_type": "sliding_window", "rate_capacity": 2}, "rate_refill_per_s"),
        ({"rate_type": "adaptive", "rate_capacity": 0.5, "rate_refill_per_s": 1}, "rate_capacity"),
        ({"created_at": None}, "created_at"),
        ({"secrets": [""]}, "api_key"),
        ({"secrets": [KEY, KEY]}, "api_key"),
        ({"secrets": ["key with space"]}, "api_key"),
        ({"secrets": ["ключ"]}, "api_key"),
        ({"secrets": ["k" * 501]}, "api_key"),
        ({"secrets": [f"{KEY}\r\nHost: evil.example"]}, "api_key"),
    ],
)
def test_bad_values_stand_on_their_field_and_leave_nothing_behind(fields: dict[str, object], at: str) -> None:
    with pytest.raises(ValidationError) as refused:
        openai(**{"secrets": [], **fields})
    assert at in refused.value.error_dict
    assert KEY not in str(refused.value)
    assert not Provider.objects.exists()


def test_a_name_is_taken_once() -> None:
    openai()
    with pytest.raises(ValidationError) as refused:
        openai()
    assert list(refused.value.error_dict) == ["name"]


def test_a_host_without_a_dot_is_an_address() -> None:
    assert openai(provider_type="ollama", base_url="http://ollama:11434/v1", secrets=[]).address == "http://ollama:11434/v1"


def test_another_path_on_the_same_host_keeps_the_keys() -> None:
    provider = openai(base_url="https://vendor.example/v1")
    services.update_provider(provider, {"base_url": "https://VENDOR.example:443/v2"})
    assert opened(provider) == [KEY]


def test_another_host_asks_for_the_key_again_and_changes_nothing() -> None:
    provider = openai(base_url="https://vendor.example/v1")
    with pytest.raises(ValidationError) as refused:
        services.update_provider(provider, {"base_url": "https://evil.example/v1"})
    assert "enter the key again" in str(refused.value.error_dict["base_url"])
    provider.refresh_from_db()
    assert provider.base_url == "https://vendor.example/v1"
    assert opened(provider) == [KEY]


def test_another_host_is_seen_also_on_an_instance_that_a_form_has_changed() -> None:
    provider = openai(base_url="https://vendor.example/v1")
    provider.base_url = "https://evil.example/v1"
    with pytest.raises(ValidationError):
        services.update_provider(provider, {"base_url": "https://evil.example/v1"})


def test_another_type_without_an_address_is_another_host() -> None:
    provider = openai()
    with pytest.raises(ValidationError, match="old address"):
        services.update_provider(provider, {"provider_type": "vllm"})
    services.update_provider(provider, {"provider_type": "vllm"}, [])
    assert not provider.keys.exists()


def test_another_host_with_new_keys_drops_the_old() -> None:
    provider = openai(base_url="https://vendor.example/v1", secrets=[KEY, KEY + "2"])
    services.update_provider(provider, {"base_url": "https://other.example/v1"}, [OTHER])
    assert opened(provider) == [OTHER]


def test_a_vendor_that_needs_no_key_loses_its_keys_only_when_it_is_said() -> None:
    provider = openai(provider_type="openai_compatible", base_url="http://a.example/v1")
    with pytest.raises(ValidationError) as refused:
        services.update_provider(provider, {"base_url": "http://b.example/v1"})
    assert "to be dropped" in str(refused.value.error_dict["base_url"])
    assert opened(Provider.objects.get()) == [KEY]
    services.update_provider(provider, {"base_url": "http://b.example/v1"}, [])
    assert not provider.keys.exists()


def test_one_key_is_deleted_and_the_others_stay() -> None:
    provider = openai(secrets=[KEY, OTHER])
    services.delete_key(provider.keys.get(last4="cdef"))
    assert opened(provider) == [OTHER]


def test_new_keys_replace_all_others() -> None:
    provider = openai(secrets=[KEY, KEY + "2"])
    services.update_provider(provider, {}, [OTHER])
    assert opened(provider) == [OTHER]


def test_an_update_writes_only_what_it_was_given() -> None:
    provider = openai()
    Provider.objects.filter(pk=provider.pk).update(max_concurrency=3)
    services.update_provider(provider, {"is_active": False})
    provider.refresh_from_db()
    assert (provider.max_concurrency, provider.is_active) == (3, False)


def test_an_update_knows_its_columns() -> None:
    with pytest.raises(ValidationError) as refused:
        services.update_provider(openai(), {"id": "1", "is_active": False})
    assert list(refused.value.error_dict) == ["id"]


def test_a_moved_row_does_not_open_an_old_key() -> None:
    provider = openai(base_url="https://vendor.example/v1")
    Provider.objects.filter(pk=provider.pk).update(base_url="https://evil.example/v1")
    provider.refresh_from_db()
    with pytest.raises(CannotOpen):
        services.spec_of(provider, provider.keys.all())
    assert services.test_connection(provider).checks[0].result == "fail"


def test_add_and_rotate() -> None:
    provider = openai()
    key = services.add_key(provider, OTHER, "second")
    assert (key.name, key.rotated_at, opened(provider)) == ("second", None, [KEY, OTHER])
    services.rotate_key(key, KEY + "3")
    key.refresh_from_db()
    assert key.rotated_at is not None
    assert (key.last4, key.name, opened(provider)) == ("def3", "second", [KEY, KEY + "3"])


def test_rotating_seals_for_the_address_of_now() -> None:
    provider = openai(provider_type="openai_compatible", base_url="http://a.example/v1")
    key = provider.keys.get()
    Provider.objects.filter(pk=provider.pk).update(base_url="http://b.example/v1")
    services.rotate_key(key, OTHER)
    assert opened(provider) == [OTHER]


@pytest.mark.parametrize("plaintext", ["", " ", "a b", "é"])
def test_a_bad_key_is_neither_added_nor_rotated_in(plaintext: str) -> None:
    provider = openai()
    for attempt in (lambda: services.add_key(provider, plaintext), lambda: services.rotate_key(provider.keys.get(), plaintext)):
        with pytest.raises(ValidationError) as refused:
            attempt()
        assert list(refused.value.error_dict) == ["api_key"]
    assert opened(provider) == [KEY]


def test_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_KEYS", 1)
    with pytest.raises(ValidationError, match="at most 1"):
        services.add_key(openai(), OTHER)


def test_a_short_key_shows_nothing_of_itself() -> None:
    assert services.add_key(openai(), "short-key").last4 == ""


def test_disable_and_enable() -> None:
    provider = openai()
    services.disable_provider(provider)
    assert not Provider.objects.get().is_active
    services.enable_provider(provider)
    assert Provider.objects.get().is_active


def test_spec_has_the_active_keys_and_every_number() -> None:
    provider = openai(
        secrets=[KEY, OTHER],
        options={"project": "p"},
        rate_capacity=4.0,
        rate_refill_per_s=2.0,
        max_concurrency=9,
        breaker_fail_max=3,
        breaker_reset_timeout_s=1.5,
        connect_timeout_s=1.0,
        first_byte_timeout_s=2.0,
        idle_timeout_s=3.0,
        total_timeout_s=4.0,
    )
    ProviderKey.objects.filter(last4="3210").update(is_active=False)
    spec = services.spec_of(provider, provider.keys.all())
    assert [key.secret.reveal() for key in spec.keys] == [KEY]
    assert (spec.id, spec.name, spec.kind, spec.base_url) == (str(provider.id), "main", "openai", "https://api.openai.com/v1")
    assert (spec.options, spec.max_concurrency) == ({"project": "p"}, 9)
    assert (spec.rate.type, spec.rate.capacity, spec.rate.refill_rate) == ("token_bucket", 4.0, 2.0)
    assert (spec.breaker.fail_max, spec.breaker.reset_timeout_s) == (3, 1.5)
    timeouts = spec.timeouts
    assert (timeouts.connect_s, timeouts.first_byte_s, timeouts.idle_s, timeouts.total_s) == (1.0, 2.0, 3.0, 4.0)
    assert KEY not in repr(spec)


def a_certificate() -> tuple[str, str]:
    """(certificate, its private key), PEM."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(pem).decode(), private.decode()


def test_authorities_of_ones_own_are_certificates_and_nothing_else() -> None:
    certificate, private = a_certificate()
    provider = openai(ca_certificates=certificate * 2)
    assert services.spec_of(provider, []).ca_certificates == certificate * 2
    for wrong, said in ((private, "private key"), (certificate + private, "private key"), ("none", "BEGIN CERTIFICATE"), ("é", "BEGIN")):
        with pytest.raises(ValidationError, match=said) as refused:
            services.update_provider(provider, {"ca_certificates": wrong})
        assert set(refused.value.message_dict) == {"ca_certificates"}
    assert services.spec_of(services.update_provider(provider, {"ca_certificates": ""}), []).ca_certificates == ""


def test_an_unknown_type_in_a_row_is_a_configuration_error() -> None:
    provider = openai()
    Provider.objects.update(provider_type="telepathy")
    provider.refresh_from_db()
    with pytest.raises(ConfigurationError, match="telepathy"):
        services.spec_of(provider, [])
    assert "telepathy" in services.test_connection(provider).checks[0].detail
    with pytest.raises(ValidationError):
        services.list_vendor_models(provider)
