"""What processes tell each other of vendors: breakers that open and close, keys that rest and work again, lists that were not
given, probes that failed.

Times travel as seconds from now: the monotonic clocks of two machines have nothing in common. What was heard is not told on,
and a message that is lost costs no more than finding out for oneself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from gateway.sharing.peers import Peers

_log = logging.getLogger(__name__)
KIND = "news"
_DAY_S = 86_400.0
_MAX_REASON = 500

_Id = Annotated[str, msgspec.Meta(max_length=300)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=_DAY_S)]
_Wall = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
_Reason = Annotated[str, msgspec.Meta(max_length=_MAX_REASON)]


class _AboutKey(msgspec.Struct, frozen=True, tag_field="what"):
    """By the ids of rows, "" where a provider needs no key; `model` is the vendor's name of it, "" = every model."""

    provider: _Id
    key: _Id
    model: _Id


class Opened(_AboutKey, frozen=True, tag="opened"):
    """A breaker. `open_s` and `doublings` say how far its open time has grown; see `gateway.breaker`. `reset_at`: the last reset that
    the teller knew of; whoever knows of a later one has been told to forget this."""

    wait_s: _Seconds
    last_wait_s: _Seconds
    open_s: _Seconds
    doublings: Annotated[int, msgspec.Meta(ge=0, le=20)]
    reason: _Reason
    reset_at: _Wall = 0.0


class Closed(_AboutKey, frozen=True, tag="closed"):
    """A breaker, by a trial."""


class Rests(_AboutKey, frozen=True, tag="rests"):
    """A key that was limited for a model, or refused for all. `length_s` is what its next rest grows from."""

    wait_s: _Seconds
    length_s: _Seconds
    reason: _Reason
    reset_at: _Wall = 0.0


class Works(_AboutKey, frozen=True, tag="works"):
    """A key, after a rest."""


class Unlisted(msgspec.Struct, frozen=True, tag_field="what", tag="unlisted"):
    """A provider that was asked for its list of models and did not give it; see `gateway.listing`."""

    provider: _Id
    reason: _Reason


class Listed(msgspec.Struct, frozen=True, tag_field="what", tag="listed"):
    """A provider that was in doubt and has given its list, or has answered a call."""

    provider: _Id


class Ill(msgspec.Struct, frozen=True, tag_field="what", tag="ill"):
    """A model that did not answer a probe; see `gateway.probing`. `model` is the vendor's name of it."""

    provider: _Id
    model: _Id
    reason: _Reason


class Well(msgspec.Struct, frozen=True, tag_field="what", tag="well"):
    """A model that was ill and has answered."""

    provider: _Id
    model: _Id


class Reset(msgspec.Struct, frozen=True, tag_field="what", tag="reset"):
    """Of everything at a provider, by an administrator, at `reset_at` (wall seconds of the database's row)."""

    provider: _Id
    reset_at: _Wall


OfProvider = Unlisted | Listed | Reset
OfModel = Opened | Closed | Rests | Works | Ill | Well
News = OfModel | OfProvider


def tell(peers: Peers, news: News) -> None:
    peers.tell(KIND, msgspec.to_builtins(news))


def read(message: Mapping[str, Any]) -> News | None:
    """None for what is no news, which is logged."""
    try:
        news: News = msgspec.convert(message, News)
    except msgspec.ValidationError as exc:
        _log.warning("news from another process is dropped: %s", exc)
        return None
    return news


def reason_of(error: Exception) -> str:
    return str(error)[:_MAX_REASON]
