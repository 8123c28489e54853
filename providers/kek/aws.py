"""A KEK in AWS KMS, through `boto3`, which finds its credentials in its own ways (AWS_ACCESS_KEY_ID …, a role of the machine).

They may `kms:Encrypt` and `kms:Decrypt` with this key. What a secret is bound to (table, row, column, the provider's origin) is the
encryption context, and so stands in CloudTrail. What `boto3` sends does not pass `core.outbound`: where it goes is the operator's
choice, from the environment, and no row can change it.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

from core.secrets import NOT_ITS_PLACE, CannotOpen, KekAway

_NOT_ITS_OWN = "InvalidCiphertextException"


def refusal() -> str:
    return "" if settings.AWS_REGION else "set AWS_REGION to the key's region, such as eu-central-1"


def build(name: str) -> AwsKek:
    import boto3
    from botocore.config import Config

    timeout_s = settings.KEK_TIMEOUT_S
    config = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 2}, proxies={})
    session = boto3.session.Session(region_name=settings.AWS_REGION)
    return AwsKek(session.client("kms", endpoint_url=settings.AWS_KMS_ENDPOINT or None, config=config), name)


class AwsKek:
    """`name` is a key's id, its ARN, or `alias/…`."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        wrapped: bytes = self._ask("encrypt", context, Plaintext=data_key)["CiphertextBlob"]
        return wrapped

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        data_key: bytes = self._ask("decrypt", context, CiphertextBlob=wrapped)["Plaintext"]
        return data_key

    def version(self, wrapped: bytes) -> str:
        """KMS changes the key material by itself and does not say which is in use."""
        return ""

    def _ask(self, verb: str, context: bytes, **fields: bytes) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client, verb)(KeyId=self._name, EncryptionContext={"bound_to": context.decode()}, **fields)
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", ""))
            if code == _NOT_ITS_OWN:
                raise CannotOpen(NOT_ITS_PLACE) from None
            raise self._away(f"refuses ({code}): see that it is the right key, is enabled, and may be used by us") from None
        except BotoCoreError as exc:
            raise self._away(f"does not answer ({type(exc).__name__})") from None

    def _away(self, what: str) -> KekAway:
        return KekAway(f"key-encryption key {self._name} is at AWS KMS ({settings.AWS_REGION}), which {what}")
