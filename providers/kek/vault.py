"""A KEK in the transit engine of HashiCorp Vault or OpenBao, through `hvac`.

The key has to be there (`vault write -f transit/keys/NAME`), and our token may `update` transit/encrypt/NAME and transit/decrypt/NAME.
What `hvac` sends does not pass `core.outbound`: its address is the operator's, from the environment, and no row can change it.
Of the environment it takes nothing but what settings.py hands it; it follows no redirect.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.conf import settings

from core.errors import ConfigurationError
from core.secrets import NOT_ITS_PLACE, CannotOpen, KekAway

if TYPE_CHECKING:
    import hvac

# What Vault and OpenBao say of a ciphertext that is not one of this key, or has other associated data.
_NOT_ITS_OWN = ("message authentication failed", "invalid ciphertext")
_MAX_REASON = 200


def refusal() -> str:
    if not settings.VAULT_ADDR:
        return "set VAULT_ADDR to Vault's address, such as https://vault.example.com:8200"
    return "" if settings.VAULT_TOKEN() else "set VAULT_TOKEN or VAULT_TOKEN_FILE"


def build(name: str) -> VaultKek:
    import hvac
    import requests

    session = requests.Session()
    session.trust_env = False  # no proxy, and no password from a .netrc
    session.verify = settings.VAULT_CACERT or True
    client = hvac.Client(
        url=settings.VAULT_ADDR,
        token="",  # set before each call  # nosec B106
        timeout=settings.KEK_TIMEOUT_S,
        allow_redirects=False,
        session=session,
        namespace=settings.VAULT_NAMESPACE or None,
        verify=session.verify,
    )
    return VaultKek(client, name, settings.VAULT_TRANSIT_MOUNT, settings.VAULT_TOKEN)


class VaultKek:
    """`token` is asked at each call: an agent may renew the file it comes from."""

    def __init__(self, client: hvac.Client, name: str, mount: str, token: Callable[[], str]) -> None:
        self._client = client
        self._name = name
        self._mount = mount
        self._token = token

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        answer = self._ask("encrypt_data", plaintext=_text(data_key), associated_data=_text(context))
        ciphertext: str = answer["ciphertext"]
        return ciphertext.encode()

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        answer = self._ask("decrypt_data", ciphertext=wrapped.decode("ascii", "replace"), associated_data=_text(context))
        return base64.b64decode(answer["plaintext"])

    def version(self, wrapped: bytes) -> str:
        """`vault:v3:…` is of version 3."""
        return wrapped[:20].decode("ascii", "replace").split(":")[1].removeprefix("v") if wrapped.startswith(b"vault:v") else ""

    def _ask(self, verb: str, **fields: str) -> dict[str, Any]:
        import hvac.exceptions
        import requests

        try:
            self._client.token = self._token()
            answer = getattr(self._client.secrets.transit, verb)(self._name, mount_point=self._mount, **fields)
            data: dict[str, Any] = answer["data"]
        except hvac.exceptions.InvalidRequest as exc:
            said = " ".join(map(str, exc.errors or ())) or str(exc)
            if any(each in said for each in _NOT_ITS_OWN):
                raise CannotOpen(NOT_ITS_PLACE) from None
            raise self._away(f"refuses: {' '.join(said.split())[:_MAX_REASON]}") from None
        except hvac.exceptions.Forbidden:
            raise self._away("refuses our token: give VAULT_TOKEN a valid one that may encrypt and decrypt with this key") from None
        except hvac.exceptions.InvalidPath:
            raise self._away(f"has no transit engine at {self._mount}, or not this key in it") from None
        except hvac.exceptions.VaultDown:
            raise self._away("is sealed, or standing by: unseal it") from None
        except (hvac.exceptions.VaultError, requests.RequestException, ConfigurationError, TypeError, KeyError) as exc:
            raise self._away(f"does not answer as it should ({type(exc).__name__})") from None
        return data

    def _away(self, what: str) -> KekAway:
        return KekAway(f"key-encryption key {self._name} is at Vault ({settings.VAULT_ADDR}), which {what}")


def _text(given: bytes) -> str:
    return base64.b64encode(given).decode()
