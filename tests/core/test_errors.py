"""The tree in the docstring is the tree in the code, and each class carries the facts that everybody reads."""

from __future__ import annotations

import inspect
import re

import pytest

from core import errors
from core.errors import GatewayError


def tree(root: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [cls for child in root.__subclasses__() if child.__module__ == "core.errors" for cls in (child, *tree(child))]


CLASSES = tree()


def drawn() -> dict[str, tuple[int, int | None]]:
    """name → (depth, HTTP status) as the docstring draws it."""
    lines = (errors.__doc__ or "").split("\n")
    found = [re.match(r"    ([│ ├└─]*)(\w+)(?:\s+(\d{3}))?", line) for line in lines]
    return {
        line[2]: (len(line[1]) // 4, int(line[3]) if line[3] else None) for line in found if line and (line[1] or line[2] == "GatewayError")
    }


def test_the_docstring_draws_every_class_at_its_place() -> None:
    picture = drawn()
    assert set(picture) == {"GatewayError", *(cls.__name__ for cls in CLASSES)}
    for cls in CLASSES:
        depth, status = picture[cls.__name__]
        assert depth == cls.__mro__.index(GatewayError), cls
        assert status in (None, cls.http_status), cls


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_says_what_a_client_sees(cls: type[GatewayError]) -> None:
    assert 400 <= cls.http_status < 600
    assert cls.type
    assert cls.code or cls is errors.CallerError
    error = cls("A sentence.", param="n", retry_after_s=1.5, detail="for the log")
    assert (str(error), error.message, error.param, error.retry_after_s, error.detail) == (
        "A sentence.",
        "A sentence.",
        "n",
        1.5,
        "for the log",
    )


@pytest.mark.parametrize("cls", CLASSES)
def test_only_a_vendor_is_blamed_and_only_what_another_target_may_not_meet_is_retried(cls: type[GatewayError]) -> None:
    if cls.blames_provider:
        assert cls.retryable
        assert issubclass(cls, errors.ProviderError)
    if cls.retryable:
        assert issubclass(cls, (errors.ProviderError, errors.ProviderBudgetExhausted, errors.ModelUnpriced))


def test_the_breaker_counts_exactly_these() -> None:
    assert {cls.__name__ for cls in CLASSES if cls.blames_provider} == {
        "ProviderTimeout",
        "ProviderUnreachable",
        "ProviderTlsFailed",
        "ProviderFault",
        "ProviderNonsense",
    }


def test_our_key_at_the_vendor_is_never_the_callers_fault() -> None:
    assert errors.ProviderRejectedOurKey.http_status == 502
    assert errors.ProviderLacksModel.http_status == 502
    assert errors.OutboundRefused.http_status == 502


def test_a_vendors_status_is_kept() -> None:
    assert errors.ProviderFault("m", vendor_status=529).vendor_status == 529
    assert errors.ProviderTimeout("m").vendor_status == 0


def test_public_classes_are_all_in_the_tree() -> None:
    outside = {name for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)}
    assert outside - {cls.__name__ for cls in CLASSES} == {"GatewayError", "ConfigurationError"}
