"""Money as integers. One micro-unit is a millionth of the currency's unit; a float never holds money.

A price is integer micro-units per million tokens: "2.50" dollars per million is 2_500_000.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from core.config import PriceSpec
from core.usage import Usage

MICROS = 1_000_000
MAX_PRICE_PER_MILLION = Decimal(1_000_000)
_TOKENS_PER_PRICE = 1_000_000


def micros_from_decimal(amount: str | Decimal) -> int:
    """Units → micro-units, exactly. Raises ValueError where `amount` is no finite number or needs more than six decimals."""
    try:
        scaled = Decimal(amount) * MICROS
    except InvalidOperation:
        raise ValueError(f"{amount!r} is not a decimal number") from None
    if not scaled.is_finite() or scaled != scaled.to_integral_value():
        raise ValueError(f"{amount!r} needs more than six decimals; prices are kept in millionths")
    return int(scaled)


def plain(micros: int) -> str:
    """Micro-units as a plain decimal string without an exponent or idle zeros: 12300 → '0.0123'."""
    whole, rest = divmod(abs(micros), MICROS)
    fraction = f"{rest:06d}".rstrip("0") or "0"
    return f"{'-' if micros < 0 else ''}{whole}.{fraction}"


def cost_micros(usage: Usage, price: PriceSpec) -> int:
    """What `usage` costs at `price`, in micro-units, rounded half to even once, at the very end."""
    scaled = (
        usage.input * price.input
        + usage.cached_input * price.cached_input
        + usage.cache_write * price.cache_write
        + usage.output * price.output
    )
    if usage.total_tokens != usage.input + usage.cached_input + usage.cache_write + usage.output:
        scaled += (
            usage.cache_write_1h * _or(price.cache_write_1h, price.cache_write)
            + usage.input_audio * _or(price.input_audio, price.input)
            + usage.input_image * _or(price.input_image, price.input)
            + usage.reasoning * _or(price.reasoning, price.output)
            + usage.output_audio * _or(price.output_audio, price.output)
            + usage.output_image * _or(price.output_image, price.output)
        )
    whole, rest = divmod(scaled, _TOKENS_PER_PRICE)
    doubled = 2 * rest
    round_up = doubled > _TOKENS_PER_PRICE or (doubled == _TOKENS_PER_PRICE and whole % 2 == 1)
    return whole + round_up


def _or(own: int | None, general: int) -> int:
    return general if own is None else own
