"""What the tests of Gemini's wire start from: its samples, a model, an adapter, what goes out of a conversation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from core.chat import ChatRequest, Dialect
from core.config import KeySpec, ModelSpec, ProviderSpec
from core.conversation import Conversation
from core.secrets import Secret
from providers.adapters.gemini import Gemini, to_wire
from providers.adapters.translated import Leftovers

SAMPLES = Path(__file__).parent / "gemini"
KEY = "of-no-known-form-1234"
SECRET = Secret(KEY)


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text())


def names(prefix: str) -> list[str]:
    return sorted(path.name for path in SAMPLES.glob(f"{prefix}-*.json"))


def model(model_id: str = "gemini-2.5-flash", drop_params: bool = False) -> ModelSpec:
    return ModelSpec("model-1", "alias", model_id, "provider-1", drop_params=drop_params)


def adapter(base_url: str = "https://generativelanguage.googleapis.com", **options: Any) -> Gemini:
    return Gemini(ProviderSpec("provider-1", "main", "gemini", base_url, keys=(KeySpec("key-1", "1234", SECRET),), options=options))


def sent(conversation: Conversation, model: ModelSpec) -> tuple[Any, list[str]]:
    """The body as it goes out, and what was dropped."""
    leftovers = Leftovers(conversation, model, "Google Gemini")
    return json.loads(msgspec.json.encode(to_wire(conversation, model, leftovers))), sorted(leftovers.names)


def embeddings(**body: Any) -> ChatRequest:
    fields = msgspec.json.decode(msgspec.json.encode({"model": "alias", **body}), type=dict[str, msgspec.Raw])
    dialect = cast(Dialect, SimpleNamespace(NAME="embeddings"))
    return ChatRequest(dialect, "alias", False, False, None, 1, fields)
