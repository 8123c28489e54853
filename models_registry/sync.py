"""A vendor's list of models compared with our rows, and the rows brought in line with it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from django.utils import timezone

from core.errors import ProviderNonsense
from models_registry import catalogue
from models_registry.models import LLMModel
from providers.models import Provider
from providers.report import CAPABILITIES

MAX_VENDOR_MODELS = 5_000
_MAX_MODEL_ID = 200
_NOT_IN_AN_ALIAS = re.compile(r"[^A-Za-z0-9._:/@-]")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the catalogue would fill in at one of the vendor's models, and only where a row has nothing of its own.

    None, [] and {} = nothing to fill in. `tiers` come with the price: see catalogue.Entry. The sources say which catalogue, of which day.
    """

    model_id: str
    context_window: int | None
    max_output_tokens: int | None
    capabilities: list[str]
    per_million: Mapping[str, str]
    currency: str
    limits_source: str
    price_source: str
    tiers: tuple[catalogue.Tier, ...] = ()

    @property
    def source(self) -> str:
        """Of what is proposed here."""
        sources = [self.limits_source if set(self.fields) - {"per_million"} else "", self.price_source if self.per_million else ""]
        return "; ".join(dict.fromkeys(filter(None, sources)))

    @property
    def fields(self) -> tuple[str, ...]:
        """The names, out of catalogue.FIELDS, of what is proposed."""
        return tuple(name for name in catalogue.FIELDS if getattr(self, name))


@dataclass(frozen=True, slots=True)
class SyncDiff:
    """Vendor's model ids: not here yet, here but no longer there, and back again. `applied`: the rows follow.

    `taken`: the fields that were filled in, by model id.
    """

    new: list[str]
    gone: list[str]
    changed: list[str]
    applied: bool
    proposals: list[Proposal] = field(default_factory=list)
    taken: dict[str, list[str]] = field(default_factory=dict)


def checked(model_ids: Iterable[str]) -> set[str]:
    """A vendor's list is a stranger's input. Raises ProviderNonsense."""
    listed = set(model_ids)
    if len(listed) > MAX_VENDOR_MODELS:
        raise ProviderNonsense(f"The vendor lists {len(listed)} models; at most {MAX_VENDOR_MODELS} can be taken over.")
    if any(not model_id or len(model_id) > _MAX_MODEL_ID or not model_id.isprintable() for model_id in listed):
        raise ProviderNonsense(f"The vendor lists a model whose name is empty, unprintable or longer than {_MAX_MODEL_ID} characters.")
    return listed


def difference(provider: Provider, listed: set[str], rows: list[LLMModel], priced: set[LLMModel], apply: bool) -> SyncDiff:
    """`rows` are all of this provider, `priced` those of them that have a price, in force or not."""
    by_id: dict[str, list[LLMModel]] = {}
    for row in rows:
        by_id.setdefault(row.model_id, []).append(row)
    proposals = (proposal(provider, model_id, by_id.get(model_id, []), priced) for model_id in sorted(listed))
    return SyncDiff(
        new=sorted(listed - set(by_id)),
        gone=sorted({row.model_id for row in _gone(rows, listed)}),
        changed=sorted({row.model_id for row in _back(rows, listed) if not row.is_active}),
        applied=apply,
        proposals=[found for found in proposals if found is not None],
    )


def proposal(provider: Provider, model_id: str, rows: list[LLMModel], priced: set[LLMModel]) -> Proposal | None:
    """For a model with these `rows`, [] = it is new. What one of them lacks is proposed."""
    entry = catalogue.entry_of(provider, model_id)
    if entry is None:
        return None
    templates = rows or [LLMModel()]
    found = Proposal(
        model_id=model_id,
        context_window=entry.context_window if any(row.context_window is None for row in templates) else None,
        max_output_tokens=entry.max_output_tokens if any(row.max_output_tokens is None for row in templates) else None,
        capabilities=sorted({word for row in templates for word in _missing(row, entry.capabilities)}),
        per_million=entry.per_million or {} if any(row not in priced for row in templates) else {},
        currency=catalogue.CURRENCY,
        limits_source=entry.limits_source,
        price_source=entry.price_source,
        tiers=entry.tiers,
    )
    return found if found.fields else None


def _missing(row: LLMModel, words: Iterable[str]) -> list[str]:
    """An admin's own list stays as it is, and what a connection test has found out is known better here."""
    if not isinstance(row.capabilities, list) or set(row.capabilities) - set(CAPABILITIES):
        return []
    return [word for word in words if word not in row.capabilities and row.tested.get(word, "pass") == "pass"]


def apply_list(provider: Provider, diff: SyncDiff, rows: list[LLMModel], listed: set[str]) -> list[LLMModel]:
    """Adds what is new, switches off what is gone and on what is back. Returns the new rows. Raises ValidationError."""
    now = timezone.now()
    added = add_models(provider, diff.new)
    for row in _gone(rows, listed):
        row.is_active, row.gone_at = False, now
        row.save(update_fields=["is_active", "gone_at", "updated_at"])
    for row in _back(rows, listed):
        row.is_active, row.gone_at = True, None
        row.save(update_fields=["is_active", "gone_at", "updated_at"])
    return added


def add_models(provider: Provider, model_ids: Iterable[str]) -> list[LLMModel]:
    """One row each, under the vendor's own name where that is free. Raises ValidationError."""
    taken = set(LLMModel.objects.values_list("alias", flat=True))
    added = []
    for model_id in model_ids:
        model_type = LLMModel.ModelType.EMBEDDING if catalogue.is_embedding(model_id) else LLMModel.ModelType.CHAT
        row = LLMModel(provider=provider, model_id=model_id, alias=_free_alias(provider, model_id, taken), model_type=model_type)
        row.full_clean()
        row.save(force_insert=True)
        taken.add(row.alias)
        added.append(row)
    return added


def fill_in(row: LLMModel, proposed: Proposal, fields: Collection[str]) -> list[str]:
    """Sets what `row` has not of the `fields`, and saves it; its price is the caller's to set. Returns the names of what it set."""
    changed = []
    for name in ("context_window", "max_output_tokens"):
        if name in fields and getattr(row, name) is None and getattr(proposed, name):
            setattr(row, name, getattr(proposed, name))
            changed.append(name)
    if "capabilities" in fields and (missing := _missing(row, proposed.capabilities)):
        row.capabilities = [*row.capabilities, *missing]
        changed.append("capabilities")
    if changed:
        row.save(update_fields=[*changed, "updated_at"])
    return changed


def _free_alias(provider: Provider, model_id: str, taken: set[str]) -> str:
    """The vendor's own name, or with the provider's in front: two models behind one alias is an admin's decision."""
    alias = _NOT_IN_AN_ALIAS.sub("-", model_id)
    if alias in taken or not alias[0].isalnum():
        alias = f"{provider.name}/{alias}"
    return alias[:_MAX_MODEL_ID]


def _gone(rows: list[LLMModel], listed: set[str]) -> list[LLMModel]:
    return [row for row in rows if row.is_active and row.model_id not in listed]


def _back(rows: list[LLMModel], listed: set[str]) -> list[LLMModel]:
    return [row for row in rows if row.gone_at is not None and row.model_id in listed]
