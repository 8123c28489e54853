"""What is kept of numbers that cannot be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core.usage import refused_counts

SAYS = "no whole numbers that can be: "


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"prompt_tokens": -5, "completion_tokens": 10**12}, SAYS + "prompt_tokens -5, completion_tokens 1000000000000"),
        ({"prompt_tokens": "7", "completion_tokens": 1.5}, SAYS + "prompt_tokens '7', completion_tokens 1.5"),
        ({"prompt_tokens": None, "details": {"cached_tokens": True}}, SAYS + "prompt_tokens None, details cached_tokens True"),
        ({"prompt_tokens": [1]}, SAYS + "prompt_tokens list"),
        (msgspec.Raw(b'{"input_tokens":-1}'), SAYS + "input_tokens -1"),
        (msgspec.Raw(b"{\xff"), SAYS + "'{\ufffd'"),
        ("many", SAYS + "'many'"),
        (None, ""),
        ({}, ""),
        ({"trafficType": "ON_DEMAND"}, ""),
    ],
)
def test_what_was_said_is_shown(said: Any, shown: str) -> None:
    assert refused_counts(said) == shown


def test_a_credential_among_the_numbers_is_not_kept() -> None:
    secret = "sk-live-0123456789abcdefghijklmnop"
    for said in ({"prompt_tokens": secret}, {secret: 1, "tokens": 2}, secret, {"tokens": {"a": {"b": secret}}}):
        assert secret not in refused_counts(said)


def test_it_fits_its_column() -> None:
    assert len(refused_counts({f"tokens_{number:030}": -number for number in range(1000)})) == 200
