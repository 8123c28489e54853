"""Prices from the offline catalogue or from a file, through the service that the admin uses: what `import_prices` does.

A file is JSON, a list of objects as REST takes them but with the model by its name, or CSV with a line of headings:

    [{"provider": "openai-main", "model": "gpt-4o", "currency": "USD", "per_million": {"input": "2.50", "output": "10"}}]
    provider,model,currency,input,cached_input,output,valid_from,source

`provider`, `valid_from` and `source` may be left out. No price is edited: another one ends it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from core.money import plain
from models_registry import catalogue
from models_registry.models import LLMModel, Price
from models_registry.services import ALL_BUCKETS, price_columns, set_price

MAX_FILE_BYTES = 10 * 2**20
_FIELDS = ("provider", "model", "currency", "valid_from", "source", "per_million")


class PricesRefused(Exception):
    """The file cannot be read at all. The message says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """What becomes of one model: new | changed | unchanged | unknown | refused. `price` is None for the last two, `note` says why."""

    provider: str
    model: str
    verb: str
    price: Price | None = None
    note: str = ""


def from_catalogue(provider: str = "", *, dry_run: bool) -> list[Line]:
    """A price for every model that has none, as far as the catalogue knows one. `provider` "" = all."""
    with transaction.atomic():
        lines = [_from_catalogue(row) for row in _models(provider).filter(prices__isnull=True)]
        transaction.set_rollback(dry_run)
    return lines


def from_file(path: Path, provider: str = "", *, dry_run: bool) -> list[Line]:
    """What the file says, line by line: one that is refused keeps no other from being taken. Raises PricesRefused, OSError."""
    entries = _entries(path)
    with transaction.atomic():
        lines = [line for entry in entries for line in _from_entry(entry, provider)]
        transaction.set_rollback(dry_run)
    return lines


def _models(provider: str) -> QuerySet[LLMModel]:
    rows = LLMModel.objects.select_related("provider").order_by("provider__name", "alias")
    return rows.filter(provider__name=provider) if provider else rows


def _from_catalogue(row: LLMModel) -> Line:
    entry = catalogue.entry_of(row.provider, row.model_id)
    if entry is None or not entry.per_million:
        return Line(row.provider.name, row.alias, "unknown", note="the catalogue has no price for it")
    return _set(row, {"currency": catalogue.CURRENCY, "per_million": dict(entry.per_million), "source": entry.price_source})


def _entries(path: Path) -> list[Any]:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise PricesRefused(f"{path} is larger than {MAX_FILE_BYTES} bytes.")
    try:
        text = path.read_text("utf-8-sig")
        found = list(csv.DictReader(io.StringIO(text))) if path.suffix.lower() == ".csv" else json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError, csv.Error) as exc:
        raise PricesRefused(f"{path} cannot be read: {exc}.") from None
    if not isinstance(found, list):
        raise PricesRefused(f"{path} holds no list of prices.")
    return found


def _from_entry(entry: Any, provider: str) -> Iterator[Line]:
    """One line for each row that the entry is about; none where it is about another provider than `provider`."""
    if not isinstance(entry, dict):
        yield Line("", "", "refused", note="an entry is an object of names and values")
        return
    # A CSV has every column in every line.
    given = {str(name): value for name, value in entry.items() if value not in (None, "")}
    said, name = str(given.get("provider", "")), str(given.get("model", ""))
    if provider and said and said != provider:
        return
    try:
        price, rows = _price(given), _rows(said or provider, name)
    except ValidationError as refused:
        yield Line(said, name, "refused", note=_sentence(refused))
        return
    for row in rows:
        yield _set(row, price)


def _price(given: dict[str, Any]) -> dict[str, Any]:
    """What `set_price` takes. Raises ValidationError by field."""
    nested = given.get("per_million", {})
    if not isinstance(nested, dict):
        raise ValidationError({"per_million": "Write an object of amounts by bucket."})
    buckets = {**nested, **{name: value for name, value in given.items() if name in ALL_BUCKETS}}
    if unknown := sorted(set(given) - {*_FIELDS, *ALL_BUCKETS}):
        raise ValidationError(dict.fromkeys(unknown, "This field is not known."))
    price = {"currency": given.get("currency", "USD"), "per_million": buckets, "source": str(given.get("source", ""))}
    if "valid_from" in given:
        price["valid_from"] = _moment(given["valid_from"])
    return price


def _moment(value: Any) -> datetime:
    try:
        moment = parse_datetime(str(value))
    except ValueError:
        moment = None
    if moment is None:
        raise ValidationError({"valid_from": "Write a moment such as 2026-11-01T00:00:00Z."})
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)


def _rows(provider: str, name: str) -> list[LLMModel]:
    """Every row of one provider that goes by `name`, here or at the vendor. Raises ValidationError."""
    found = list(_models(provider).filter(Q(alias=name) | Q(model_id=name))) if name else []
    if not found:
        raise ValidationError({"model": f"There is no such model{f' at {provider}' if provider else ''}."})
    if len({row.provider_id for row in found}) > 1:
        raise ValidationError(
            {"provider": f"Several have this model: {', '.join(sorted({row.provider.name for row in found}))}. Name one."}
        )
    return found


def _set(row: LLMModel, price: dict[str, Any]) -> Line:
    latest = row.prices.order_by("-valid_from").first()
    try:
        if latest is not None and _stands(latest, price):
            return Line(row.provider.name, row.alias, "unchanged", latest)
        made = set_price(row, **price)
    except ValidationError as refused:
        return Line(row.provider.name, row.alias, "refused", note=_sentence(refused))
    return Line(row.provider.name, row.alias, "changed" if latest else "new", made, made.source)


def _stands(latest: Price, price: dict[str, Any]) -> bool:
    """Whether `latest` says already what `price` would, so that a file can be imported twice."""
    columns = price_columns(price["per_million"])
    same = all(getattr(latest, f"{bucket}_micros") == columns.get(f"{bucket}_micros") for bucket in ALL_BUCKETS)
    begins = latest.valid_from == price["valid_from"] if "valid_from" in price else latest.valid_to is None
    return same and begins and latest.currency == price["currency"]


def _sentence(refused: ValidationError) -> str:
    if not hasattr(refused, "error_dict"):
        return " ".join(refused.messages)
    return " ".join(f"{name}: {text}" for name, texts in refused.message_dict.items() for text in texts)


def table(lines: list[Line]) -> list[str]:
    """For a terminal: aligned columns, amounts per million tokens."""
    heads = ("provider", "model", "", "currency", "input", "cached", "write", "output", "note")
    rows = [heads, *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(line: Line) -> tuple[str, ...]:
    price = line.price
    if price is None:
        return (line.provider, line.model, line.verb, "", "", "", "", "", line.note)
    amounts = (price.input_micros, price.cached_input_micros, price.cache_write_micros, price.output_micros)
    others = [
        f"{bucket} {plain(micros)}"
        for bucket in ALL_BUCKETS[4:]
        if (micros := getattr(price, f"{bucket}_micros")) is not None
    ]  # fmt: skip
    return (line.provider, line.model, line.verb, price.currency, *map(plain, amounts), "; ".join(filter(None, [line.note, *others])))
