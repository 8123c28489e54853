"""The Azure door: OpenAI's dialects under Azure's URLs, which name the model. `api-version` is taken and says nothing to us.

Source: Azure OpenAI's REST reference; the paths that `openai.AzureOpenAI` builds.
"""

from __future__ import annotations

import msgspec

from core.chat import ChatRequest
from core.config import CallerSpec
from gateway.doors.body import Scope
from gateway.doors.http import GenerationDoor
from gateway.router import View

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class AzureDoor(GenerationDoor):
    """`/openai/deployments/{alias}/…`: the alias is the model, whatever the body says."""

    def read(self, body: bytes, scope: Scope, view: View, caller: CallerSpec) -> ChatRequest:
        return self._dialect.parse(with_model(body, scope["url_route"]["kwargs"]["alias"]))


def with_model(body: bytes, alias: str) -> bytes:
    """The body with `alias` as its model. What is no JSON object comes back as it is, for the dialect to refuse."""
    try:
        fields = _fields.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    return msgspec.json.encode({**fields, "model": alias})
