"""Prices from the offline catalogue or from a file, through the service that the admin uses: what `import_prices` does.

A file is JSON, a list of objects as REST takes them but with the model by its name, or CSV with a line of headings:

    [{"provider": "openai-main", "model": "gpt-4o", "currency": "USD", "per_million": {"input": "2.50", "output": "10"}}]
    provider,model,currency,input,cached_input,output,service_tier,min_input_tokens,valid_from,source

All but `model` and the amounts may be left out. No price is edited: another one ends it. One that is refused keeps all others
from being taken.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from core.config import DEFAULT_CURRENCY
from core.money import plain
from models_registry import catalogue
from models_registry.models import LLMModel, Price
from models_registry.services import ALL_BUCKETS, OPTIONAL_BUCKETS, latest_price, price_columns, set_price

MAX_FILE_BYTES = 10 * 2**20
_FIELDS = ("provider", "model", "currency", "valid_from", "source", "service_tier", "min_input_tokens", "per_million")


class PricesRefused(Exception):
    """The file cannot be read at all, or what was accepted is no more what it was. The message says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """What becomes of one price of one model: new | changed | differs | unchanged | unknown | refused.

    `price` is the one that was, or would be, set, None for unknown and refused; `latest` the one in its place, if any. A price
    that `differs` was not taken. `note` says what else there is to say.
    """

    provider: str
    model: str
    verb: str
    price: Price | None = None
    latest: Price | None = None
    note: str = ""

    @property
    def key(self) -> str:
        """Names this very difference, for those who accept it: the model, the size, and what the price takes the place of."""
        price = self.price
        return f"{price.model_id}/{price.min_input_tokens}/{self.latest.pk if self.latest else ''}" if price else ""


def from_catalogue(provider: str = "", *, dry_run: bool, replaces: bool = False, accept: Collection[str] | None = None) -> list[Line]:
    """What the catalogue says beside what is here, without what is the same. `provider` "" = all.

    Taken is what a model without any price gets, and with `replaces` what differs from its own too; or else what is in `accept`,
    by `Line.key`. Raises PricesRefused where that is not proposed (any more).
    """
    with transaction.atomic():
        lines = [
            _taken(line) if (line.key in accept if accept is not None else line.verb == "new" or replaces) else _left(line)
            for line in _catalogue_lines(provider)
        ]
        if accept is not None and (gone := set(accept) - {line.key for line in lines}):
            raise PricesRefused(f"{len(gone)} of the accepted prices are not proposed any more: look again. Nothing was changed.")
        _keep(lines, dry_run)
    return lines


def from_file(path: Path, provider: str = "", *, dry_run: bool) -> list[Line]:
    """What the file says, entry by entry. Raises PricesRefused, OSError."""
    entries = _entries(path)
    with transaction.atomic():
        lines = [line for number, entry in enumerate(entries, 1) for line in _from_entry(number, entry, provider)]
        _keep(lines, dry_run)
    return lines


def _keep(lines: list[Line], dry_run: bool) -> None:
    """All of it or nothing."""
    transaction.set_rollback(dry_run or any(line.verb == "refused" for line in lines))


def _models(provider: str) -> QuerySet[LLMModel]:
    rows = LLMModel.objects.select_related("provider").order_by("provider__name", "alias")
    return rows.filter(provider__name=provider) if provider else rows


def _catalogue_lines(provider: str) -> Iterator[Line]:
    for row in _models(provider).prefetch_related("prices"):
        entry, has_prices = catalogue.entry_of(row.provider, row.model_id), bool(row.prices.all())
        if entry is None or not entry.per_million:
            if not has_prices:
                yield Line(row.provider.name, row.alias, "unknown", note="the catalogue has no price for it")
            continue
        given = {"currency": catalogue.CURRENCY, "source": entry.price_source}
        for size, per_million in ((0, entry.per_million), *entry.tiers):
            price = {**given, "per_million": dict(per_million), "min_input_tokens": size}
            latest = latest_price(row, min_input_tokens=size)
            if latest is None or not _stands(latest, price):
                yield Line(row.provider.name, row.alias, "differs" if has_prices else "new", _unsaved(row, price), latest)


def _unsaved(row: LLMModel, price: dict[str, Any]) -> Price:
    others = {name: value for name, value in price.items() if name != "per_million"}
    return Price(model=row, **price_columns(price["per_million"]), **others)


def _taken(line: Line) -> Line:
    """A line of the catalogue, with its price set."""
    if line.price is None:
        return line
    price = line.price
    per_million = {name: plain(micros) for name in ALL_BUCKETS if (micros := getattr(price, f"{name}_micros")) is not None}
    given = {"currency": price.currency, "per_million": per_million, "source": price.source, "min_input_tokens": price.min_input_tokens}
    return _set(price.model, given)


def _left(line: Line) -> Line:
    """A line of the catalogue whose price is not taken."""
    return replace(line, verb="differs") if line.price else line


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


def _from_entry(number: int, entry: Any, provider: str) -> Iterator[Line]:
    """One line for each row that the entry is about; none where it is about another provider than `provider`."""
    if not isinstance(entry, dict):
        yield Line("", "", "refused", note=f"entry {number}: an entry is an object of names and values")
        return
    # A CSV has every column in every line.
    given = {name: value for name, value in entry.items() if value not in ("", None)}
    said, name = str(given.get("provider", "")), str(given.get("model", ""))
    if provider and said and said != provider:
        return
    try:
        price, rows = _price(given), _rows(said or provider, name)
    except ValidationError as refused:
        yield Line(said, name, "refused", note=f"entry {number}: {_sentence(refused)}")
        return
    for row in rows:
        line = _set(row, price)
        yield replace(line, note=f"entry {number}: {line.note}") if line.verb == "refused" else line


def _price(given: dict[str, Any]) -> dict[str, Any]:
    """What `set_price` takes. Raises ValidationError by field."""
    nested = given.get("per_million", {})
    if not isinstance(nested, dict):
        raise ValidationError({"per_million": "Write an object of amounts by bucket."})
    buckets = {**nested, **{name: value for name, value in given.items() if name in ALL_BUCKETS}}
    if unknown := sorted(set(given) - {*_FIELDS, *ALL_BUCKETS}):
        raise ValidationError(dict.fromkeys(unknown, "This field is not known."))
    price = {"currency": given.get("currency", DEFAULT_CURRENCY), "per_million": buckets, "source": str(given.get("source", ""))}
    if "valid_from" in given:
        price["valid_from"] = _moment(given["valid_from"])
    if "service_tier" in given:
        price["service_tier"] = str(given["service_tier"])
    if "min_input_tokens" in given:
        price["min_input_tokens"] = _whole(given["min_input_tokens"])
    return price


def _whole(value: Any) -> int:
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise ValidationError({"min_input_tokens": "Write a whole number of tokens, e.g. 200001."})
    return int(text)


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
    latest = latest_price(row, price.get("service_tier", ""), price.get("min_input_tokens", 0))
    try:
        if latest is not None and _stands(latest, price):
            return Line(row.provider.name, row.alias, "unchanged", latest, latest)
        made = set_price(row, **price)
    except ValidationError as refused:
        return Line(row.provider.name, row.alias, "refused", note=_sentence(refused))
    return Line(row.provider.name, row.alias, "changed" if latest else "new", made, latest)


def _stands(latest: Price, price: dict[str, Any]) -> bool:
    """Whether `latest` says already what `price` would, so that a file can be imported twice."""
    begins = latest.valid_from == price["valid_from"] if "valid_from" in price else latest.valid_to is None
    return begins and same_amounts(latest, price)


def same_amounts(row: Price, price: dict[str, Any]) -> bool:
    """Whether `price`, as `set_price` takes it, asks for what `row` does. Raises ValidationError by field."""
    columns = price_columns(price["per_million"])
    same = all(getattr(row, f"{bucket}_micros") == columns.get(f"{bucket}_micros") for bucket in ALL_BUCKETS)
    return same and row.currency == price["currency"]


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
    return (line.provider, line.model, line.verb, price.currency, *map(plain, amounts), "; ".join(filter(None, notes(line))))


def notes(line: Line) -> list[str]:
    """What is to be said of a price beside its main amounts."""
    price = line.price
    if price is None:
        return [line.note]
    others = [f"{name} {plain(micros)}" for name in OPTIONAL_BUCKETS if (micros := getattr(price, f"{name}_micros")) is not None]
    return [price.tier.lstrip(", "), price.source, *others, f"now {amounts_of(line.latest)}" if line.verb == "differs" else ""]


def amounts_of(price: Price | None) -> str:
    """The main amounts in one line."""
    if price is None:
        return "unknown"
    return f"{plain(price.input_micros)} / {plain(price.output_micros)} {price.currency}"
