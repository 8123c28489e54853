"""What an attempt takes from budgets: at most, before it, and in truth, after it. Pure.

A token is at least one byte of text, so a body has at most as many tokens as bytes, and no prompt more than the model's window.
A picture that is only named by its address is the exception; what it costs beyond that is charged all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from core.chat import ChatRequest
from core.config import BudgetSpec, CallerSpec, ModelSpec, PriceSpec, Snapshot
from core.errors import ModelUnpriced
from core.money import adjusted, converted_up
from gateway.budget import Reservation
from gateway.router import Target
from gateway.settlement import Charge

_TOKENS_PER_PRICE = 1_000_000
_BASIS_POINTS = 10_000
_MAX_CHOICES = 128
# More than any limit may be, and no more than a column of the ledger holds.
_MOST = 4 * 10**18


class Tokens(NamedTuple):
    """The most that can go in and come out."""

    input: int
    output: int


def worst_case(request: ChatRequest, model: ModelSpec, window: int, default_output_tokens: int) -> Tokens:
    """`window` 0 = not known. `default_output_tokens` is for a client and a model that both say nothing."""
    makes_text = request.dialect.SCOPE != "embeddings"
    prompts = _prompts(request.fields.get("prompt" if makes_text else "input"))
    entering = min(request.body_bytes, window * prompts) if window else request.body_bytes
    if not makes_text:
        return Tokens(entering, 0)
    said = [most for most in (request.max_output_tokens, model.max_output_tokens) if most]
    return Tokens(entering, min(said, default=default_output_tokens) * _choices(request) * prompts)


def _prompts(raw: msgspec.Raw | None) -> int:
    """How many texts, or lists of token numbers, are sent in one: each may fill the window, and is answered on its own."""
    if raw is None or not bytes(raw).startswith(b"["):
        return 1
    try:
        items = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.MsgspecError:  # the vendor refuses it
        return 1
    return len(items) if items and bytes(items[0])[:1] in (b'"', b"[") else 1


def _choices(request: ChatRequest) -> int:
    """How many answers are made: each may be as long as one."""
    most = 1
    for name in ("n", "best_of"):
        raw = request.fields.get(name)
        if raw is not None:
            try:
                most = max(most, min(msgspec.json.decode(raw, type=int), _MAX_CHOICES))
            except msgspec.MsgspecError:  # the vendor refuses it
                continue
    return most


def user_of(request: ChatRequest) -> str:
    """Whom the client names: OpenAI's `user`, Anthropic's `metadata.user_id`; "" = nobody."""
    try:
        if (raw := request.fields.get("user")) is not None:
            return msgspec.json.decode(raw, type=str)
        if (raw := request.fields.get("metadata")) is not None:
            found = msgspec.json.decode(raw, type=dict[str, object]).get("user_id")
            return found if isinstance(found, str) else ""
    except msgspec.MsgspecError:
        pass
    return ""


def needs(
    specs: Iterable[BudgetSpec], tokens: Tokens, target: Target, caller: CallerSpec, snapshot: Snapshot, wall_s: float
) -> list[tuple[BudgetSpec, int]]:
    """What has to be reserved of each. Raises ModelUnpriced where money is limited and no price is known."""
    found = []
    for spec in specs:
        if spec.kind == "requests":
            most: int | None = 1
        elif spec.kind == "tokens":
            most = tokens.input + tokens.output
        else:
            most = _most_money(spec, tokens, target, caller, snapshot, wall_s)
            if most is None and spec.hard:
                raise _unpriced(spec, target)
        found.append((spec, min(most or 0, _MOST)))
    return found


def _most_money(spec: BudgetSpec, tokens: Tokens, target: Target, caller: CallerSpec, snapshot: Snapshot, wall_s: float) -> int | None:
    """At the dearest of the prices in force, whatever the tier and size; None = not known in the budget's currency."""
    if target.model.price_at(wall_s) is None:
        return None
    most = 0
    for price in target.model.prices:
        if price.valid_from <= wall_s and (price.valid_to is None or wall_s < price.valid_to):
            cost = -(-_scaled(tokens, price) * (_BASIS_POINTS + target.provider.price_adjustment_bp) // (_TOKENS_PER_PRICE * _BASIS_POINTS))
            if cost and price.currency != spec.currency:
                rate = snapshot.rate_at(price.currency, wall_s) if spec.currency == snapshot.currency else None
                if rate is None:
                    return None
                cost = converted_up(cost, rate)
            most = max(most, cost)
    return most if spec.scope == "provider" else adjusted(most, caller.price_adjustment_bp)


def _scaled(tokens: Tokens, price: PriceSpec) -> int:
    entering = max(
        *(price.input, price.cached_input, price.cache_write),
        *(price.cache_write_1h or 0, price.input_audio or 0, price.input_image or 0),
    )
    leaving = max(price.output, price.reasoning or 0, price.output_audio or 0, price.output_image or 0)
    return tokens.input * entering + tokens.output * leaving


def _unpriced(spec: BudgetSpec, target: Target) -> ModelUnpriced:
    model = f"{target.model.alias!r} at provider {target.provider.name}"
    return ModelUnpriced(
        f"The model {model} has no price in {spec.currency}, and {spec.name} limits money: an administrator has to set its price first.",
        param="model",
    )


def used(reservation: Reservation, charge: Charge, caller: CallerSpec, *, given_up: bool) -> tuple[int, ...]:
    """Of each part of the reservation, in the budget's unit; () = nothing was used. An attempt that was given up for another is
    our own cost, at the provider: the caller is charged for the one that answers."""
    if charge.usage is None:
        return ()
    return tuple(
        0 if given_up and part.account.spec.scope != "provider" else _amount(part.account.spec, charge, caller, part.amount)
        for part in reservation.parts
    )


def _amount(spec: BudgetSpec, charge: Charge, caller: CallerSpec, reserved: int) -> int:
    if spec.kind == "requests":
        return 1
    if spec.kind == "tokens":
        return charge.tokens
    cost = charge.cost_micros if charge.currency == spec.currency or charge.cost_micros == 0 else None
    if cost is None and charge.reporting_currency == spec.currency:
        cost = charge.cost_reporting_micros
    if cost is None:  # it was known when this was reserved
        return reserved
    return cost if spec.scope == "provider" else adjusted(cost, caller.price_adjustment_bp)
