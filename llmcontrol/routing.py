"""Every data-plane URL and socket. What matches nothing here goes to Django (urls.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import URLPattern, re_path

from gateway.doors import anthropic_messages, completions, embeddings, openai_chat, responses
from gateway.doors.anthropic_count import MessagesCountDoor
from gateway.doors.azure import AzureDoor
from gateway.doors.count_tokens import CountTokensDoor
from gateway.doors.generate import GenerateDoor
from gateway.doors.http import Gateway, GenerationDoor
from gateway.doors.models import ModelsDoor
from gateway.doors.probes import ProviderHealth, Ready, Root, Unknown, health
from gateway.doors.ws import GenerateConsumer


def data_plane(gateway: Gateway, django_app: Callable[..., Any], *, websocket: bool) -> ProtocolTypeRouter:
    """The busiest routes stand first: each one before a match costs half a microsecond."""
    chat, models = GenerationDoor(gateway, openai_chat), ModelsDoor(gateway)
    respond, embed = GenerationDoor(gateway, responses), GenerationDoor(gateway, embeddings)
    complete = GenerationDoor(gateway, completions)
    http = [
        _at(r"^v1/chat/completions$", chat),
        _at(r"^v1/messages$", GenerationDoor(gateway, anthropic_messages)),
        _at(r"^v1/responses$", respond),
        _at(r"^v1/embeddings$", embed),
        _at(r"^v1/completions$", complete),
        _at(r"^v1/models$", models),
        _at(r"^v1/models/(?P<alias>.+)$", models),
        _at(r"^v1/messages/count_tokens$", MessagesCountDoor(gateway)),
        _at(r"^api/v1/chat/completions$", chat),
        _at(r"^api/v1/models$", models),
        _at(r"^api/v1/models/(?P<alias>.+)$", models),
        _at(r"^api/generate$", GenerateDoor(gateway)),
        _at(r"^api/count-tokens$", CountTokensDoor(gateway)),
        _at(r"^openai/deployments/(?P<alias>.+)/chat/completions$", AzureDoor(gateway, openai_chat)),
        _at(r"^openai/deployments/(?P<alias>.+)/embeddings$", AzureDoor(gateway, embeddings)),
        _at(r"^openai/deployments/(?P<alias>.+)/completions$", AzureDoor(gateway, completions)),
        _at(r"^openai/v1/chat/completions$", chat),
        _at(r"^openai/(?:v1/)?responses$", respond),
        _at(r"^openai/v1/embeddings$", embed),
        _at(r"^openai/v1/completions$", complete),
        _at(r"^openai/(?:v1/)?models$", models),
        _at(r"^openai/(?:v1/)?models/(?P<alias>.+)$", models),
        _at(r"^health$", health),
        _at(r"^ready$", Ready(gateway)),
        _at(r"^api/health$", ProviderHealth(gateway)),
        _at(r"^(?:v1|openai)/", Unknown(gateway)),
        _at(r"^$", Root(django_app)),
        _at(r"", django_app),
    ]
    sockets = [_at(r"^ws/generate$", GenerateConsumer.as_asgi(gateway=gateway))] if websocket else []
    return ProtocolTypeRouter({"http": URLRouter(http), "websocket": URLRouter([*sockets, _at(r"", _no_socket)])})


async def _no_socket(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Refused before accepting, which the client sees as 403."""
    await receive()
    await send({"type": "websocket.close"})


def _at(pattern: str, app: Any) -> URLPattern:
    """Django's patterns are typed for views; Channels calls what they hold as an ASGI application."""
    route: URLPattern = re_path(pattern, app)
    return route
