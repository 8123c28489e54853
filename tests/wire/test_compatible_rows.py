"""Each row of the registry against samples of its vendor: what is sent, what a client hears, and which error a refusal is."""

from __future__ import annotations

from typing import Any

import pytest

from providers.adapters.registry import COMPATIBLE_VENDORS
from tests.wire.rows_cast import HERE, KINDS, check_answer, check_error, check_models, check_request, samples

FOLDERS = ["openai_itself", *(kind for kind in COMPATIBLE_VENDORS if kind not in ("openai", "openai_compatible"))]


def of(part: str) -> list[Any]:
    return [sample for folder in FOLDERS for sample in samples(folder, part)]


def test_every_row_has_samples() -> None:
    assert {folder for folder in FOLDERS if not (HERE / folder / "requests.json").is_file()} == set()
    assert {KINDS.get(folder, folder) for folder in FOLDERS} | {"openai_compatible"} == set(COMPATIBLE_VENDORS)


@pytest.mark.parametrize(("kind", "sample"), of("requests"))
def test_what_is_sent(kind: str, sample: dict[str, Any]) -> None:
    check_request(kind, sample)


@pytest.mark.parametrize(("kind", "sample"), of("answers"))
def test_what_a_client_hears(kind: str, sample: dict[str, Any]) -> None:
    check_answer(kind, sample)


@pytest.mark.parametrize(("kind", "sample"), of("errors"))
def test_which_error_a_refusal_is(kind: str, sample: dict[str, Any]) -> None:
    check_error(kind, sample)


@pytest.mark.parametrize(("kind", "sample"), of("models"))
def test_which_models_are_listed(kind: str, sample: dict[str, Any]) -> None:
    check_models(kind, sample)
