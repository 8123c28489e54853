"""Where this server is made known, read from the environment: to Nacos, a registry that others find services by. `registration` does it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

import msgspec

from core.errors import ConfigurationError
from core.secrets import Secret
from llmcontrol.environment import Environment

_SERVER = re.compile(r"(https?://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?")
_METADATUM = re.compile(r"[A-Za-z0-9._-]{1,64}=[\x21-\x7e]{1,256}")


class Nacos(msgspec.Struct, frozen=True):
    """`servers`: base URLs, any of which may be asked. `ip` "": the address that is served at; `port` 0: the port."""

    servers: tuple[str, ...]
    service: str
    group: str
    cluster: str
    namespace: str
    ip: str
    port: int
    weight: float
    metadata: Mapping[str, str]
    username: str
    password: Secret


def read(env: Environment) -> Nacos | None:
    """None: nobody is told. Raises ConfigurationError that names the variable."""
    servers = tuple(_base_url(item) for item in env.items("NACOS_SERVER_ADDR"))
    if not servers:
        return None
    return Nacos(
        servers=servers,
        service=env.text("NACOS_SERVICE", "llmcontrol"),
        group=env.text("NACOS_GROUP", "DEFAULT_GROUP"),
        cluster=env.text("NACOS_CLUSTER", "DEFAULT"),
        namespace=env.text("NACOS_NAMESPACE"),
        ip=_ip(env.text("NACOS_INSTANCE_IP")),
        port=env.integer("NACOS_INSTANCE_PORT", 0, 0, 65535),
        weight=env.number("NACOS_WEIGHT", 1, 0.01, 10_000),
        metadata=dict(_metadatum(item) for item in env.items("NACOS_METADATA")),
        username=env.text("NACOS_USERNAME"),
        password=Secret(env.text("NACOS_PASSWORD")),
    )


def _base_url(item: str) -> str:
    if not _SERVER.fullmatch(item):
        raise ConfigurationError(f"NACOS_SERVER_ADDR: {item!r}: write HOST:PORT, or https://HOST:PORT; several with commas")
    url = item if "://" in item else f"http://{item}"
    return url if re.search(r":\d+$", url) else f"{url}:8848"


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        raise ConfigurationError(f"NACOS_INSTANCE_IP={text!r}: write the IP address at which others reach this server") from None


def _metadatum(item: str) -> tuple[str, str]:
    if not _METADATUM.fullmatch(item):
        raise ConfigurationError(f"NACOS_METADATA: {item!r}: write NAME=value pairs, such as region=eu-1,zone=b")
    name, _, value = item.partition("=")
    return name, value
