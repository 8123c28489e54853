"""Who acts: kept beside the running code, so that services need not hand it on. No Django: manage.py sets it before that is there."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Actor(NamedTuple):
    """`source`: admin, api, shell, command or data plane. `user_id` is empty where nobody is logged in."""

    source: str
    name: str = ""
    user_id: str = ""
    address: str = ""
    request_id: str = ""


_acting: ContextVar[Callable[[], Actor] | None] = ContextVar("audit_actor", default=None)


@contextmanager
def acting(actor: Callable[[], Actor]) -> Iterator[None]:
    """Inside, what is recorded is done by `actor()`, which is asked when it is written: a request learns late who sent it."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


def current() -> Callable[[], Actor]:
    return _acting.get() or in_the_shell


def in_the_shell() -> Actor:
    return Actor("shell", _machine_user())


def running(command: str) -> Callable[[], Actor]:
    """`manage.py COMMAND`."""
    return lambda: Actor("command", f"manage.py {command} ({_machine_user()})")


def data_plane() -> Actor:
    return Actor("data plane", "system")


def _machine_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        return "unknown"
