from __future__ import annotations

from core.config import KeySpec
from core.errors import ProviderFault, ProviderLimited, ProviderRejectedOurKey
from core.secrets import Secret
from gateway.keypool import MAX_REST_S, Key, KeyPool


def specs(*weights: int) -> tuple[KeySpec, ...]:
    return tuple(KeySpec(id=f"k{index}", last4="", secret=Secret(f"s{index}"), weight=weight) for index, weight in enumerate(weights))


def closed(key_id: str) -> float:
    return 0.0


def take(pool: KeyPool, now: float = 0.0) -> Key:
    key, _, _ = pool.pick("m", now, closed)
    assert key is not None
    key.in_flight += 1
    return key


def test_the_least_loaded_key_goes_first_by_weight() -> None:
    pool = KeyPool(specs(1, 3))
    taken = [take(pool).id for _ in range(8)]
    assert taken.count("k0") == 2
    assert taken.count("k1") == 6


def test_a_limited_key_rests_for_as_long_as_the_vendor_says_up_to_a_bound() -> None:
    pool = KeyPool(specs(1, 1))
    take(pool).release("m", ProviderLimited("slow down", retry_after_s=5), 0.0)
    assert {take(pool, 1.0).id for _ in range(4)} == {"k1"}
    assert take(pool, 5.0).id == "k0"
    take(pool, 5.0).release("m", ProviderLimited("slow down", retry_after_s=9999), 5.0)
    assert all(rest.until <= 5.0 + MAX_REST_S for key in pool._keys for rest in key.rests.values())


def test_when_all_rest_the_shortest_wait_and_its_reason_come_back() -> None:
    pool = KeyPool(specs(1, 1))
    take(pool).release("m", ProviderRejectedOurKey("refused"), 0.0)
    take(pool).release("m", ProviderLimited("slow down", retry_after_s=3), 0.0)
    key, wait_s, reason = pool.pick("m", 1.0, closed)
    assert key is None
    assert wait_s == 2.0
    assert isinstance(reason, ProviderLimited)


def test_a_vendor_fault_is_not_the_keys_fault() -> None:
    pool = KeyPool(specs(1))
    take(pool).release("m", ProviderFault("500"), 0.0)
    assert take(pool).id == "k0"


def test_an_open_breaker_passes_a_key_over() -> None:
    pool = KeyPool(specs(1, 1))
    key, _, _ = pool.pick("m", 0.0, lambda key_id: 7.0 if key_id == "k0" else 0.0)
    assert key is not None
    assert key.id == "k1"
    assert pool.pick("m", 0.0, lambda key_id: 7.0) == (None, 7.0, None)


def test_new_rows_keep_load_and_rest_unless_the_secret_changed() -> None:
    pool = KeyPool(specs(1, 1))
    take(pool).release("m", ProviderRejectedOurKey("refused"), 0.0)
    pool.apply(specs(1, 1, 1))
    assert pool._keys[0].rest("any", 0.0).until == 60.0
    pool.apply((KeySpec(id="k0", last4="", secret=Secret("new")),))
    assert not take(pool).rests


def test_a_provider_without_keys_is_called_without_one() -> None:
    key = take(KeyPool(()))
    assert key.secret is None
    assert key.id == ""


def test_a_limit_on_one_model_leaves_the_others_alone() -> None:
    pool = KeyPool(specs(1))
    take(pool).release("m", ProviderLimited("slow down", retry_after_s=5), 0.0)
    assert pool.pick("m", 1.0, closed)[0] is None
    assert pool.pick("other", 1.0, closed)[0] is not None
