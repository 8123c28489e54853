"""Money as integers. One micro-unit is a millionth of the currency's unit; a float never holds money.

A price is integer micro-units per million tokens: "2.50" dollars per million is 2_500_000. How a cost comes about, with an
example: docs/money.md. Each amount is rounded once, half to even.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from core.config import ExchangeRateSpec, PriceSpec
from core.usage import Usage

MICROS = 1_000_000
# ISO 4217, without funds, metals and test codes.
_ISO_4217 = """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP
    CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR
    ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN
    MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD
    SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR
    ZMW ZWG
"""
CURRENCIES = frozenset(_ISO_4217.split())
UNKNOWN_CURRENCY = "Unknown; write the three capital letters of a currency, e.g. USD, CNY or EUR."
MAX_PRICE_PER_MILLION = Decimal(1_000_000)
# An exchange rate is kept as an integer, ten decimals of it.
RATE_SCALE = 10**10
MAX_RATE = Decimal(1_000_000)
_TOKENS_PER_PRICE = 1_000_000
_BASIS_POINTS = 10_000


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


def rate_from_decimal(rate: str | Decimal) -> int:
    """An exchange rate in RATE_SCALE-ths, exactly. Raises ValueError where it is no number above 0, too large or too fine."""
    try:
        exact = Decimal(rate)
        in_range = exact.is_finite() and 0 < exact <= MAX_RATE
    except (ArithmeticError, TypeError, ValueError):
        raise ValueError("Write a decimal number, e.g. 0.1404.") from None
    if not in_range:
        raise ValueError(f"Write a rate above 0, up to {MAX_RATE}.")
    scaled = exact * RATE_SCALE
    if scaled != scaled.to_integral_value():
        raise ValueError("Write at most ten decimals.")
    return int(scaled)


def adjusted(micros: int, basis_points: int) -> int:
    """`micros` and so many hundredths of a per cent of it: -1500 is 15 % less."""
    return _half_even(micros * (_BASIS_POINTS + basis_points), _BASIS_POINTS) if basis_points else micros


def converted(micros: int, rate: ExchangeRateSpec) -> int:
    """`micros` of a rate's currency in the reporting currency."""
    return _half_even(micros * RATE_SCALE, rate.rate) if rate.inverse else _half_even(micros * rate.rate, RATE_SCALE)


def converted_up(micros: int, rate: ExchangeRateSpec) -> int:
    """As `converted`, rounded up."""
    return -(-micros * RATE_SCALE // rate.rate) if rate.inverse else -(-micros * rate.rate // RATE_SCALE)


def plain_rate(rate: int) -> str:
    """A rate in RATE_SCALE-ths as a plain decimal string without an exponent or idle zeros: 1404000000 → '0.1404'."""
    whole, rest = divmod(rate, RATE_SCALE)
    fraction = f"{rest:010d}".rstrip("0")
    return f"{whole}.{fraction}" if fraction else str(whole)


def cost_micros(usage: Usage, price: PriceSpec, adjustment_bp: int = 0) -> int:
    """What `usage` costs at `price` and the vendor's discount or markup, in micro-units, rounded once, at the very end."""
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
    if adjustment_bp:
        return _half_even(scaled * (_BASIS_POINTS + adjustment_bp), _TOKENS_PER_PRICE * _BASIS_POINTS)
    return _half_even(scaled, _TOKENS_PER_PRICE)


def _half_even(amount: int, unit: int) -> int:
    """`amount` / `unit`, rounded half to even."""
    whole, rest = divmod(amount, unit)
    doubled = 2 * rest
    return whole + (doubled > unit or (doubled == unit and whole % 2 == 1))


def _or(own: int | None, general: int) -> int:
    return general if own is None else own
