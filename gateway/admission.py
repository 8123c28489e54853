"""Who is asking, and may they? All in memory: a digest, a look-up, a few comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from access.keys import digest
from core.addresses import Network, client_address, is_within
from core.config import CallerSpec, Snapshot
from core.errors import NotAuthenticated, NotPermitted

_MAX_CREDENTIAL_BYTES = 512
CREDENTIAL_HEADERS = frozenset((b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"))
_URL_PARAMETERS = (b"key=", b"api_key=", b"api-key=", b"access_token=", b"token=")
_REFUSAL = "The API key is missing, unknown, expired or revoked. Send it as `Authorization: Bearer <key>`."


def credential(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> bytes:
    """The one credential of a request. Raises NotAuthenticated where there is none, more than one, or one in the URL."""
    if query and any(part.lower().startswith(_URL_PARAMETERS) for part in query.split(b"&")):
        raise NotAuthenticated("An API key must not be part of the URL, where logs keep it; send it as a header, and replace this key.")
    found = b""
    for name, value in headers:
        if name in CREDENTIAL_HEADERS:
            if found:
                raise NotAuthenticated("The request carries more than one credential; send exactly one.")
            if name == b"authorization":
                scheme, _, value = value.partition(b" ")
                if scheme.lower() != b"bearer":
                    raise NotAuthenticated(_REFUSAL)
            found = value.strip()
    if not found or len(found) > _MAX_CREDENTIAL_BYTES:
        raise NotAuthenticated(_REFUSAL)
    return found


def known(snapshot: Snapshot, pepper: bytes, presented: bytes) -> bool:
    """Whether there is such a key, expired or not."""
    return digest(pepper, presented) in snapshot.callers


def identify(snapshot: Snapshot, pepper: bytes, presented: bytes, wall_s: float) -> CallerSpec:
    """The caller behind a credential. Raises NotAuthenticated, in the same words whatever is wrong with it."""
    caller = snapshot.callers.get(digest(pepper, presented))
    if caller is None or (caller.expires_at is not None and caller.expires_at <= wall_s):
        raise NotAuthenticated(_REFUSAL)
    return caller


def require_network(caller: CallerSpec, scope: Mapping[str, Any], trusted: Sequence[Network]) -> None:
    """Whether the request comes from where this key may be used; asked only of keys that say so. Raises NotAuthenticated: a key is
    unknown elsewhere."""
    peer = scope["client"][0] if scope.get("client") else ""
    forwarded = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for")
    if not is_within(client_address(peer, forwarded, trusted), caller.networks):
        raise NotAuthenticated(_REFUSAL)


def require_scope(caller: CallerSpec, scope: str) -> None:
    """Raises NotPermitted."""
    if scope not in caller.scopes:
        raise NotPermitted(f"This key has no scope {scope!r}; ask an administrator to add it.")
