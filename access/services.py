"""Making and revoking the credentials of programs and people, and saying who may what in a team. The plaintext of a credential is
returned once and stored nowhere. Where a person asks, nobody gives more than their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypedDict, Unpack

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from access import bounds, keys
from access.models import ApiKey, Budget, Grant, PersonalToken, Team, TeamMember
from core.secrets import Secret
from monitoring import audit
from monitoring.models import AuditEvent

SCOPES = ("chat", "embeddings", "tasks", "models", "usage")
DEFAULT_SCOPES = ("chat", "models")
MAX_ALLOWED_MODELS = 1_000
_MAX_ALIAS = 200
_CHANGEABLE = (
    *("name", "scopes", "allowed_models", "requests_per_minute", "tokens_per_minute", "max_concurrency"),
    *("source_networks", "store_bodies", "expires_at"),
)


class MaxSpend(NamedTuple):
    """A hard budget that a key is made with. `limit` is in micro-units of `currency`, `period` as a Budget's."""

    limit: int
    currency: str
    period: str = Budget.Period.TOTAL


class KeyWishes(TypedDict, total=False):
    """What a key may be made with, by column. `scopes` None = DEFAULT_SCOPES, `allowed_models` None = every model that is open to the
    team, `source_networks` None = from anywhere, `expires_at` None = as long as keys of the team last."""

    scopes: Sequence[str] | None
    allowed_models: Iterable[str] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrency: int | None
    source_networks: list[str] | None
    store_bodies: bool
    expires_at: datetime | None


def create_api_key(
    *,
    name: str,
    team: Team,
    created_by: Any = None,
    max_spend: MaxSpend | None = None,
    token: Secret | None = None,
    **wishes: Unpack[KeyWishes],
) -> tuple[ApiKey, str]:
    """The row and the key itself. `created_by` gives it, and may not give more than the team has. `token`: the key is this one, which
    the operator chose. Raises ValidationError by field."""
    bounds.refuse_stranger(created_by, "access.add_apikey", team)
    _refuse_past(wishes.get("expires_at"))
    now, scopes = timezone.now(), wishes.get("scopes")
    plaintext = token.reveal() if token else keys.make(keys.API_KEY_PREFIX)
    row = ApiKey(name=name, team=team, created_by=created_by, digest=digest_of(plaintext))
    row.prefix = keys.shown(plaintext, "" if token else keys.API_KEY_PREFIX)
    _set(row, _checked({**wishes, "scopes": DEFAULT_SCOPES if scopes is None else scopes}))
    row.expires_at = row.expires_at or bounds.latest_end(team.max_key_days, now)
    bounds.refuse_beyond(row, _CHANGEABLE, created_by, now)
    with transaction.atomic():
        row.full_clean()
        row.save(force_insert=True)
        if max_spend is not None:
            _limit_spending(row, max_spend)
        if token is None:
            audit.record(AuditEvent.Action.REVEALED, row)
    return row, plaintext


def _limit_spending(key: ApiKey, most: MaxSpend) -> None:
    budget = Budget(key=key, kind=Budget.Kind.MONEY, limit=most.limit, currency=most.currency, period=most.period)
    try:
        budget.full_clean()
    except ValidationError as refused:
        raise ValidationError({"max_spend": refused.messages}) from None
    bounds.refuse_overspending(key.team, budget)
    budget.save()


def update_api_key(key: ApiKey, changes: Mapping[str, Any], by: Any = None) -> ApiKey:
    """Sets `changes` by column name; the team and the key itself stay what they are. `by` may not give more than the team has.
    Raises ValidationError by field."""
    bounds.refuse_stranger(by, "access.change_apikey", key.team)
    values = dict(changes)
    if values.pop("team", key.team) != key.team:
        raise ValidationError({"team": "A key stays with its team: make a new key."})
    if unknown := sorted(set(values) - set(_CHANGEABLE)):
        raise ValidationError(dict.fromkeys(unknown, "This field is not known or cannot be set."))
    values = _checked(values)
    if values.get("expires_at") != key.expires_at:
        _refuse_past(values.get("expires_at"))
    if "expires_at" in values and values["expires_at"] is None:
        values["expires_at"] = bounds.latest_end(key.team.max_key_days, key.created_at)
    # What stays as it is may be beyond what its team has become: it is held within that when the key is used.
    changed = [column for column, value in values.items() if value != getattr(key, column)]
    with transaction.atomic():
        _set(key, values)
        bounds.refuse_beyond(key, changed, by, timezone.now())
        key.full_clean()
        if values:
            key.save(update_fields=list(values))
    return key


def revoke_api_key(key: ApiKey) -> None:
    """For good. A second time changes nothing: the first moment counts."""
    _revoke(key)


def save_member(member: TeamMember, by: Any = None) -> TeamMember:
    """A new member, or another role; team and person stay what they are. Raises ValidationError by field."""
    bounds.refuse_stranger(by, "access.add_teammember" if member._state.adding else "access.change_teammember", member.team)
    if not member._state.adding:
        kept = TeamMember.objects.get(pk=member.pk)
        if (kept.team_id, kept.user_id) != (member.team_id, member.user_id):
            raise ValidationError({"team": "A member stays the one of this team: remove them, and add them to the other."})
    with transaction.atomic():
        member.full_clean()
        member.save()
    return member


def save_grant(grant: Grant, by: Any = None) -> Grant:
    """Raises ValidationError by field."""
    grant.created_by = by
    with transaction.atomic():
        grant.full_clean()
        grant.save()
    return grant


def create_personal_token(user: User, name: str, expires_at: datetime | None = None) -> tuple[PersonalToken, str]:
    """The row and the token itself; it may do what `user` may do. Raises ValidationError by field."""
    _refuse_past(expires_at)
    plaintext = keys.make(keys.TOKEN_PREFIX)
    row = PersonalToken(
        user=user,
        name=name,
        prefix=keys.shown(plaintext, keys.TOKEN_PREFIX),
        digest=digest_of(plaintext),
        expires_at=expires_at,
    )
    with transaction.atomic():
        row.full_clean()
        row.save(force_insert=True)
        audit.record(AuditEvent.Action.REVEALED, row)
    return row, plaintext


def revoke_personal_token(token: PersonalToken) -> None:
    """For good, as `revoke_api_key`."""
    _revoke(token)


def digest_of(plaintext: str) -> bytes:
    """What is stored of a credential, and looked up whole."""
    return keys.digest(settings.API_KEY_PEPPER, plaintext.encode())


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """As they are kept. Raises ValidationError by field."""
    checks: Mapping[str, Callable[[Any], Any]] = {
        "scopes": checked_scopes,
        "allowed_models": checked_models,
        "source_networks": bounds.checked_networks,
    }
    return {name: checks[name](value) if name in checks else value for name, value in values.items()}


def _set(key: ApiKey, values: Mapping[str, Any]) -> None:
    for column, value in values.items():
        setattr(key, column, value)


def checked_scopes(scopes: Any) -> list[str]:
    """In the order of SCOPES, without doubles. Raises ValidationError on `scopes`."""
    if not isinstance(scopes, list | tuple) or not all(isinstance(scope, str) for scope in scopes):
        raise ValidationError({"scopes": f"Write a list of scopes; they are {', '.join(SCOPES)}."})
    given = set(scopes)
    if unknown := sorted(map(str, given - set(SCOPES))):
        raise ValidationError({"scopes": f"Unknown: {', '.join(unknown)}. The scopes are {', '.join(SCOPES)}."})
    if not given:
        raise ValidationError({"scopes": "Give at least one: a key without a scope can do nothing."})
    return [scope for scope in SCOPES if scope in given]


def checked_models(aliases: Iterable[str] | None) -> list[str] | None:
    """Aliases as they are kept; a model need not exist yet. Raises ValidationError on `allowed_models`."""
    if aliases is None:
        return None
    given = list(dict.fromkeys(aliases))
    if not given:
        raise ValidationError({"allowed_models": "Give at least one alias, or null for every model."})
    if len(given) > MAX_ALLOWED_MODELS:
        raise ValidationError({"allowed_models": f"At most {MAX_ALLOWED_MODELS} aliases; use null for every model."})
    if any(not isinstance(alias, str) or not alias or len(alias) > _MAX_ALIAS for alias in given):
        raise ValidationError({"allowed_models": f"Each alias is a text of 1 to {_MAX_ALIAS} characters."})
    return given


def _refuse_past(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= timezone.now():
        raise ValidationError({"expires_at": "This moment is over; choose a later one, or none."})


def _revoke(row: ApiKey | PersonalToken) -> None:
    with transaction.atomic():
        current = type(row).objects.select_for_update().get(pk=row.pk)
        row.revoked_at = current.revoked_at or timezone.now()
        row.save(update_fields=["revoked_at"])
