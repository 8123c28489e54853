"""Reading settings from the environment: typed, with a default, loud on a bad value, `NAME_FILE` for secrets."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from core.errors import ConfigurationError

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
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

    def items(self, name: str, default: str = "") -> list[str]:
        return [item.strip() for item in self.text(name, default).split(",") if item.strip()]

    def keys(self, name: str, hint: str) -> dict[int, bytes]:
        """`1:<base64 of 32 bytes>,2:…` → {1: bytes, 2: bytes}. The message never repeats the value."""
        keys: dict[int, bytes] = {}
        for item in self.required(name, hint).split(","):
            id_, _, encoded = item.strip().partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not id_.isdecimal() or not 0 < int(id_) < 256 or len(key) != 32:
                raise ConfigurationError(f"{name}: write ID:BASE64 with an id from 1 to 255 and exactly 32 bytes; {hint}")
            keys[int(id_)] = key
        return keys
