"""The gateway of this process, for Python code beside it."""

from __future__ import annotations

from typing import Protocol, cast

from django.conf import settings
from django.utils.module_loading import import_string

from gateway.doors.http import Gateway


class _Application(Protocol):
    async def opened(self) -> Gateway: ...


async def opened() -> Gateway:
    """Of the application that ASGI_APPLICATION names, as a server finds it too; it is started where it does not run yet.

    Raises ServerBusy where it cannot serve, such as without a database.
    """
    return await cast(_Application, import_string(settings.ASGI_APPLICATION)).opened()
