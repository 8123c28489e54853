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
    key.lease()
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
    assert all(rest.until <= 5.0 + MAX_REST_S for key in pool.keys for rest in key.rests.values())


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
    assert pool.keys[0].rest("any", 0.0).until == 60.0
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


REJECTED = ProviderRejectedOurKey("refused")


def rejected(pool: KeyPool, now: float) -> None:
    key, _, _ = pool.pick("m", now, closed)
    assert key is not None
    key.release("m", REJECTED, now, trial=key.lease())


def test_a_rejected_key_is_tried_by_one_call_and_its_rest_grows() -> None:
    pool, now, rests = KeyPool(specs(1)), 0.0, []
    for _ in range(6):
        rejected(pool, now)
        _, wait_s, reason = pool.pick("any", now, closed)
        assert reason is REJECTED
        rests.append(wait_s)
        now += wait_s
    assert rests == [60, 120, 240, 480, 900, 900]
    trial = take(pool, now)
    assert [pool.pick("m", now, closed)[:2] for _ in range(500)] == [(None, 1.0)] * 500
    trial.works("m", now)
    assert take(pool, now) is trial
    trial.release("m", None, now, trial=True)
    rejected(pool, now)
    assert pool.pick("m", now, closed)[1] == 60


def test_a_trial_that_says_nothing_of_the_key_leaves_the_next_call_to_try() -> None:
    pool = KeyPool(specs(1))
    rejected(pool, 0.0)
    key = take(pool, 60.0)
    key.release("m", ProviderFault("500"), 60.0, trial=True)
    assert pool.pick("m", 60.0, closed)[0] is key


def test_rests_after_limits_without_a_retry_after_grow_and_are_forgotten_when_the_key_works() -> None:
    pool, now, rests = KeyPool(specs(1)), 0.0, []
    for _ in range(8):
        take(pool, now).release("m", ProviderLimited("429"), now)
        rests.append(pool.pick("m", now, closed)[1])
        now += rests[-1]
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]
    key = take(pool, now)
    key.works("m", now)
    key.release("m", ProviderLimited("429"), now)
    assert pool.pick("m", now, closed)[1] == 1


def test_calls_that_fail_together_are_one_event_and_a_late_success_ends_no_rest() -> None:
    pool = KeyPool(specs(1))
    key = take(pool)
    for _ in range(9):
        key.lease()
    for _ in range(9):
        key.release("m", ProviderLimited("429"), 0.0)
    key.works("m", 0.5)
    assert pool.pick("m", 0.5, closed)[1] == 0.5


def test_another_key_than_the_one_that_failed() -> None:
    pool = KeyPool(specs(1, 1))
    first = take(pool)
    other, _, _ = pool.pick("m", 0.0, closed, first)
    assert other is not None
    assert other is not first
    assert KeyPool(specs(1)).pick("m", 0.0, closed, KeyPool(specs(1)).keys[0])[0] is not None
    alone = KeyPool(specs(1))
    assert alone.pick("m", 0.0, closed, alone.keys[0])[0] is None
