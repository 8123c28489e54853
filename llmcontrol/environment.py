"""Reading settings from the environment: typed, with a default, loud on a bad value, `NAME_FILE` for secrets."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from pathlib import Path

from core.errors import ConfigurationError

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_HTTP_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
_KEY_ID = re.compile(r"[0-9]{1,3}")
_KEY_REFERENCE = re.compile(r"(vault:[A-Za-z0-9._-]{1,128}|aws:[A-Za-z0-9/_:-]{1,2048})")
_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def load_env_file(path: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """KEY=value lines become environment variables, unless already set. A missing file is no error."""
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ConfigurationError(f"{path}: line {number} is not NAME=value")
        environ.setdefault(name.strip(), value.strip())


class Environment:
    """Each method raises ConfigurationError that names the variable and says what to write instead."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def text(self, name: str, default: str = "") -> str:
        file = self._environ.get(f"{name}_FILE")
        if file is None:
            return self._environ.get(name, default)
        if name in self._environ:
            raise ConfigurationError(f"{name} and {name}_FILE are both set: keep one of them")
        try:
            return Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"{name}_FILE: {file} cannot be read ({type(exc).__name__})") from None

    def reader(self, name: str) -> Callable[[], str]:
        """`text(name)` as it is when asked: an agent may renew the file that NAME_FILE names."""
        return partial(self.text, name)

    def required(self, name: str, hint: str) -> str:
        value = self.text(name)
        if not value:
            raise ConfigurationError(f"{name} is not set: {hint}")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.text(name) or str(default)
        if not _WHOLE_NUMBER.fullmatch(value) or not low <= int(value) <= high:
            raise ConfigurationError(f"{name}={value!r}: write a whole number from {low} to {high}")
        return int(value)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.text(name) or str(default)
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise ConfigurationError(f"{name}={value!r}: write a number from {low:g} to {high:g}")
        return number

    def boolean(self, name: str, default: bool) -> bool:
        value = self.text(name)
        if not value:
            return default
        if value.lower() not in _BOOLEANS:
            raise ConfigurationError(f"{name}={value!r}: write true or false")
        return _BOOLEANS[value.lower()]

    def one_of(self, name: str, default: str, *others: str) -> str:
        value = self.text(name) or default
        if value not in (default, *others):
            raise ConfigurationError(f"{name}={value!r}: write {' or '.join((default, *others))}")
        return value

    def url(self, name: str) -> str:
        """Of http or https; "" where it is not set."""
        value = self.text(name)
        if value and not _HTTP_URL.fullmatch(value):
            raise ConfigurationError(f"{name}: write a URL such as http://127.0.0.1:4318")
        return value

    def items(self, name: str, default: str = "") -> list[str]:
        return [item.strip() for item in self.text(name, default).split(",") if item.strip()]

    def bounds(self, name: str, known: Sequence[str], low: int, high: int) -> dict[str, int]:
        """`translation=10,custom=200` → {"translation": 10, "custom": 200}."""
        bounds = {}
        for item in self.items(name):
            word, _, value = item.partition("=")
            if word not in known or not _WHOLE_NUMBER.fullmatch(value) or not low <= int(value) <= high:
                raise ConfigurationError(f"{name}: {item!r}: write NAME=number from {low} to {high}, and of names {', '.join(known)}")
            bounds[word] = int(value)
        return bounds

    def keys(self, name: str, hint: str) -> dict[int, bytes | str]:
        """`1:<base64 of 32 bytes>,2:vault:NAME,3:aws:KEY` → {1: bytes, 2: "vault:NAME", 3: "aws:KEY"}.

        The message never repeats the value.
        """
        keys: dict[int, bytes | str] = {}
        for item in self.required(name, hint).split(","):
            id_, _, value = item.strip().partition(":")
            key = _key(value)
            if not _KEY_ID.fullmatch(id_) or not 0 < int(id_) < 256 or key is None:
                raise ConfigurationError(
                    f"{name}: write ID:BASE64 with an id from 1 to 255 and exactly 32 bytes, ID:vault:NAME or ID:aws:KEY; {hint}"
                )
            if int(id_) in keys:
                raise ConfigurationError(f"{name}: the id {int(id_)} is there twice; give every key an id of its own")
            if isinstance(key, bytes) and key in keys.values():  # one at a service may be there twice: it has versions of its own
                raise ConfigurationError(f"{name}: key {int(id_)} is a copy of another one; {hint}")
            keys[int(id_)] = key
        return keys


def _key(value: str) -> bytes | str | None:
    """The 32 bytes, or where else the key is; None for what is neither."""
    if _KEY_REFERENCE.fullmatch(value):
        return value
    try:
        key = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == 32 else None
