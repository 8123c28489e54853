"""Every data-plane URL and socket. What matches nothing here goes to Django (urls.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import URLPattern, re_path

from gateway.doors import anthropic_messages, completions, embeddings, openai_chat, responses
from gateway.doors.anthropic_count import MessagesCountDoor
from gateway.doors.azure import AzureDoor
from gateway.doors.cors import Cors
from gateway.doors.count_tokens import CountTokensDoor
from gateway.doors.generate import GenerateDoor
from gateway.doors.http import Gateway, GenerationDoor
from gateway.doors.models import ModelsDoor
from gateway.doors.probes import ProviderHealth, Ready, Root, Unknown, health
from gateway.doors.ws import GenerateConsumer
from telling.sockets import EventsConsumer, Feed

Asgi = Callable[..., Awaitable[None]]


class Literal:
    """Paths without a variable part, found by one look-up; Channels' router costs as much as reading the request does."""

    def __init__(self, doors: Mapping[str, Asgi], otherwise: Asgi) -> None:
        self._doors = doors
        self._otherwise = otherwise

    def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        return self._doors.get(scope["path"], self._otherwise)(scope, receive, send)


def data_plane(
    gateway: Gateway,
    django_app: Asgi,
    *,
    websocket: bool,
    feed: Callable[[], Feed | None] = lambda: None,
    cors_origins: Sequence[str] = (),
    generate: Mapping[str, Any] | None = None,
) -> ProtocolTypeRouter:
    """`feed`: of events, once there is one. `cors_origins`: whose pages may call it from a browser; () = nobody's. `generate`: defaults
    of /api/generate."""
    doors = _Doors(gateway)
    literal: dict[str, Asgi] = {**_literal(doors), "/api/generate": GenerateDoor(gateway, **(generate or {})), "/": Root(django_app)}
    http: Asgi = Literal(literal, URLRouter([*_patterns(doors), _at(r"", django_app)]))
    if cors_origins:
        http = Cors(http, cors_origins)
    sockets = [
        _at(r"^ws/generate$", GenerateConsumer.as_asgi(gateway=gateway)),
        _at(r"^ws$", EventsConsumer.as_asgi(gateway=gateway, feed=feed)),
    ]
    sockets = sockets if websocket else []
    return ProtocolTypeRouter({"http": http, "websocket": URLRouter([*sockets, _at(r"", _no_socket)])})


class _Doors:
    """Those that stand under more than one path."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.chat = GenerationDoor(gateway, openai_chat)
        self.responses = GenerationDoor(gateway, responses)
        self.embeddings = GenerationDoor(gateway, embeddings)
        self.completions = GenerationDoor(gateway, completions)
        self.models = ModelsDoor(gateway)


def _literal(doors: _Doors) -> dict[str, Asgi]:
    gateway = doors.gateway
    return {
        "/v1/chat/completions": doors.chat,
        "/v1/messages": GenerationDoor(gateway, anthropic_messages),
        "/v1/responses": doors.responses,
        "/v1/embeddings": doors.embeddings,
        "/v1/completions": doors.completions,
        "/v1/models": doors.models,
        "/v1/messages/count_tokens": MessagesCountDoor(gateway),
        "/api/v1/chat/completions": doors.chat,
        "/api/v1/models": doors.models,
        "/api/count-tokens": CountTokensDoor(gateway),
        "/openai/v1/chat/completions": doors.chat,
        "/openai/responses": doors.responses,
        "/openai/v1/responses": doors.responses,
        "/openai/v1/embeddings": doors.embeddings,
        "/openai/v1/completions": doors.completions,
        "/openai/models": doors.models,
        "/openai/v1/models": doors.models,
        "/health": health,
        "/ready": Ready(gateway),
        "/api/health": ProviderHealth(gateway),
    }


def _patterns(doors: _Doors) -> list[URLPattern]:
    gateway = doors.gateway
    return [
        _at(r"^(?:api/|openai/)?v1/models/(?P<alias>.+)$", doors.models),
        _at(r"^openai/models/(?P<alias>.+)$", doors.models),
        _at(r"^openai/deployments/(?P<alias>.+)/chat/completions$", AzureDoor(gateway, openai_chat)),
        _at(r"^openai/deployments/(?P<alias>.+)/embeddings$", AzureDoor(gateway, embeddings)),
        _at(r"^openai/deployments/(?P<alias>.+)/completions$", AzureDoor(gateway, completions)),
        _at(r"^(?:v1|openai)/", Unknown(gateway)),
    ]


async def _no_socket(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Refused before accepting, which the client sees as 403."""
    await receive()
    await send({"type": "websocket.close"})


def _at(pattern: str, app: Any) -> URLPattern:
    """Django's patterns are typed for views; Channels calls what they hold as an ASGI application."""
    route: URLPattern = re_path(pattern, app)
    return route
