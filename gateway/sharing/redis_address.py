"""Where Redis is: REDIS_URL, read."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from core.errors import ConfigurationError
from core.secrets import Secret

_DEFAULT_PORT = 6379
_SHAPES = "redis://[user:password@]host[:port][/database], rediss:// for TLS, or unix:///path[?db=database]"


class Address(NamedTuple):
    """`path` of a Unix socket, or else `host` and `port`."""

    host: str = ""
    port: int = _DEFAULT_PORT
    path: str = ""
    tls: bool = False
    user: str = ""
    password: Secret = Secret("")
    database: int = 0

    @property
    def shown(self) -> str:
        """Without what is secret, for logs."""
        return self.path or f"{self.host}:{self.port}"


def read_address(url: str) -> Address:
    """Raises ConfigurationError, which never repeats the URL: a password may stand in it."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        database = int(query.pop("db", "") or (parts.scheme != "unix" and parts.path.strip("/")) or 0)
        port = parts.port or _DEFAULT_PORT
    except ValueError:
        raise _unreadable("a part of it cannot be read") from None
    if query or parts.fragment:
        raise _unreadable("it has parameters that are not known")
    if not 0 <= database < 1_000_000:
        raise _unreadable("the database is a number from 0")
    user, password = unquote(parts.username or ""), Secret(unquote(parts.password or ""))
    if parts.scheme == "unix" and parts.path and not parts.hostname:
        return Address(path=unquote(parts.path), user=user, password=password, database=database)
    if not (parts.scheme in ("redis", "rediss") and parts.hostname):
        raise _unreadable(_reason(parts))
    return Address(parts.hostname, port, "", parts.scheme == "rediss", user, password, database)


def _reason(parts: SplitResult) -> str:
    return "a socket's path is missing" if parts.scheme == "unix" else "the scheme or the host is missing"


def _unreadable(why: str) -> ConfigurationError:
    return ConfigurationError(f"REDIS_URL: {why}; write {_SHAPES}")
