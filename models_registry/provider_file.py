"""Providers from a JSON file, through the services that the admin uses: what `import_providers` does.

    {"provider": {"openai-main": {"api_keys": ["…"], "base_url": "…", "model": "gpt-4o", "max_retries": 3, "retry_delay": 1,
                                  "rate_limit_capacity": 20, "rate_limit_refill_rate": 3}}}

The type is `type` (or `provider_type`), else what the provider's name begins with. In place of "provider" a type may stand.
A provider is known by its name, so that importing a file twice changes nothing the second time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from django.core.exceptions import ValidationError
from django.db import transaction

from core.secrets import CannotOpen
from models_registry.models import LLMModel
from models_registry.sync import add_models
from providers import services
from providers.adapters import registry
from providers.models import Provider

MAX_FILE_BYTES = 10 * 2**20
_GROUPS = ("provider", "providers")
# What vendors are called beside the names of our types.
_OTHER_NAMES = {
    "claude": "anthropic",
    "google": "gemini",
    "kimi": "moonshot",
    "qwen": "dashscope_compatible",
    "tongyi": "dashscope_compatible",
    "doubao": "ark",
    "volcengine": "ark",
    "ernie": "qianfan",
    "baidu": "qianfan",
    "glm": "zhipu",
    "grok": "xai",
    "local": "openai_compatible",
}
# A retry is the gateway's decision (MAX_RETRIES), not a provider's.
_WITHOUT_A_HOME = ("max_retries", "retry_delay")
_COLUMNS = {"base_url": "base_url", "rate_limit_capacity": "rate_capacity", "rate_limit_refill_rate": "rate_refill_per_s"}


class FileRefused(Exception):
    """The message names what is wrong, provider by provider, and holds no key."""


@dataclass(slots=True)
class Outcome:
    """What became of one provider: created | updated | unchanged. `changes` and `ignored` are names, never values of keys."""

    name: str
    verb: str
    changes: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Entry:
    name: str
    kind: str
    says_kind: bool
    columns: dict[str, Any]
    options: dict[str, Any]
    keys: list[str] | None
    models: list[str]
    ignored: list[str]


def import_file(text: bytes, *, dry_run: bool) -> list[Outcome]:
    """All of it or nothing, and nothing with `dry_run`. Raises FileRefused."""
    problems: list[str] = []
    outcomes: list[Outcome] = []
    with transaction.atomic():
        for name, kind, content in _entries(text):
            try:
                outcomes.append(_take(_entry(name, kind, content)))
            except ValidationError as refused:
                problems += [f"{name}: {problem}" for problem in _sentences(refused)]
        if problems or dry_run:
            transaction.set_rollback(True)
    if problems:
        raise FileRefused("\n".join(problems))
    return outcomes


def _entries(text: bytes) -> list[tuple[str, str, Any]]:
    """(name, the type that its group stands for or "", content)"""
    try:
        groups = msgspec.json.decode(text, type=dict[str, dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        # msgspec's own words are about types and places, and repeat no value.
        raise FileRefused(f'The file is not JSON of the form {{"provider": {{name: {{…}}}}}}: {exc}.') from None
    kinds = dict(registry.kinds())
    if unknown := [group for group in groups if group not in _GROUPS and group not in kinds]:
        raise FileRefused(f'Providers stand under "provider", or under a provider type; {", ".join(unknown)} is neither.')
    found = [(name, "" if group in _GROUPS else group, content) for group, named in groups.items() for name, content in named.items()]
    if twice := sorted({name for name, _, _ in found if [other for other, _, _ in found].count(name) > 1}):
        raise FileRefused(f"A name stands for one provider only; given twice: {', '.join(twice)}.")
    return found


def _entry(name: str, group_kind: str, content: Any) -> _Entry:
    """Raises ValidationError by the names of the file."""
    if not isinstance(content, dict):
        raise ValidationError("Write an object of names and values.")
    rest = dict(content)
    said = rest.pop("type", None) or rest.pop("provider_type", None) or group_kind
    rest.pop("provider_type", None)
    kind = said or _kind_of(name, has_address=bool(rest.get("base_url")))
    if not isinstance(kind, str) or kind not in dict(registry.kinds()):
        raise ValidationError({"type": f"{kind!r} is no provider type; choose one of {', '.join(known for known, _ in registry.kinds())}."})
    entry = _Entry(
        name=name,
        kind=kind,
        says_kind=bool(said),
        keys=_texts(rest, "api_keys", "api_key"),
        models=_texts(rest, "models", "model") or [],
        columns={column: rest.pop(given) for given, column in _COLUMNS.items() if rest.get(given) is not None},
        options={field.name: rest.pop(field.name) for field in registry.form(kind) if not field.secret and field.name in rest},
        ignored=[given for given in _WITHOUT_A_HOME if rest.pop(given, None) is not None],
    )
    if unknown := sorted(given for given, value in rest.items() if value is not None):
        raise ValidationError(dict.fromkeys(unknown, "This field is not known."))
    return entry


def _kind_of(name: str, *, has_address: bool) -> str:
    """The type that `name` begins with, the longest of several. Raises ValidationError where it tells none."""
    kinds = {**_OTHER_NAMES, **{kind: kind for kind, _ in registry.kinds()}}
    spelled = name.lower().replace("-", "_")
    fitting = [known for known in kinds if spelled == known or (spelled.startswith(known) and not spelled[len(known)].isalpha())]
    if fitting:
        return kinds[max(fitting, key=len)]
    if has_address:
        return "openai_compatible"
    raise ValidationError({"type": "The name does not tell which vendor this is: add a type, or a base_url."})


def _texts(rest: dict[str, Any], several: str, one: str) -> list[str] | None:
    """Takes both spellings out of `rest`; None = neither is there, or both are empty."""
    given = [rest.pop(name) for name in (several, one) if rest.get(name)]
    found = [text for value in given for text in (value if isinstance(value, list) else [value])]
    if not all(isinstance(text, str) and text.strip() for text in found):
        raise ValidationError({several: "Write a text, or a list of texts."})
    return list(dict.fromkeys(text.strip() for text in found)) or None


def _take(entry: _Entry) -> Outcome:
    stored = Provider.objects.filter(name=entry.name).first()
    if stored is None:
        provider = services.create_provider(
            name=entry.name, provider_type=entry.kind, options=entry.options, secrets=entry.keys or (), **entry.columns
        )
        _add_models(provider, entry.models)
        return Outcome(entry.name, "created", _told(provider, entry), entry.ignored)
    changes = _differences(stored, entry)
    keys_differ = entry.keys is not None and entry.keys != _opened(stored)
    if changes or keys_differ:
        services.update_provider(stored, changes, entry.keys if keys_differ or services.moves(stored, changes) else None)
    names = [*changes, *(["api_keys"] if keys_differ else []), *(f"model {alias}" for alias in _add_models(stored, entry.models))]
    return Outcome(entry.name, "updated" if names else "unchanged", names, entry.ignored)


def _told(provider: Provider, entry: _Entry) -> list[str]:
    count = len(entry.keys or ())
    keys = f"{count} key{'' if count == 1 else 's'}"
    return [f"type {provider.provider_type}", keys, *(f"model {model_id}" for model_id in entry.models)]


def _differences(stored: Provider, entry: _Entry) -> dict[str, Any]:
    """Column → new value. A type that was only guessed from the name does not overrule the row's."""
    wanted = dict(entry.columns)
    if entry.says_kind:
        wanted["provider_type"] = entry.kind
    if entry.options:
        wanted["options"] = {**stored.options, **entry.options}
    return {column: value for column, value in wanted.items() if getattr(stored, column) != value}


def _opened(stored: Provider) -> list[str] | None:
    """None where a key does not open any more: whatever the file has is better."""
    try:
        return [key.open().reveal() for key in stored.keys.order_by("created_at")]
    except CannotOpen:
        return None


def _add_models(provider: Provider, model_ids: list[str]) -> list[str]:
    """The aliases of those that were not there yet."""
    known = set(LLMModel.objects.filter(provider=provider).values_list("model_id", flat=True))
    return [row.alias for row in add_models(provider, [model_id for model_id in model_ids if model_id not in known])]


def _sentences(refused: ValidationError) -> list[str]:
    spelled = {column: given for given, column in _COLUMNS.items()} | {"api_key": "api_keys"}
    if not hasattr(refused, "error_dict"):
        return list(refused.messages)
    return [f"{spelled.get(column, column)}: {text}" for column, texts in refused.message_dict.items() for text in texts]
