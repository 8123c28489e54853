"""What the tests of DashScope's wire start from: its samples, a model, an adapter, what goes out of a conversation."""

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
from providers.adapters.dashscope import DashScope, to_wire
from providers.adapters.translated import Leftovers

SAMPLES = Path(__file__).parent / "dashscope"
KEY = "of-no-known-form-1234"
SECRET = Secret(KEY)


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text())


def names(prefix: str) -> list[str]:
    return sorted(path.name for path in SAMPLES.glob(f"{prefix}-*.json"))


def model(model_id: str = "qwen-plus", drop_params: bool = False, capabilities: tuple[str, ...] = ()) -> ModelSpec:
    return ModelSpec("model-1", "alias", model_id, "provider-1", drop_params=drop_params, capabilities=capabilities)


def adapter(base_url: str = "https://dashscope.aliyuncs.com", **options: Any) -> DashScope:
    return DashScope(ProviderSpec("provider-1", "main", "dashscope", base_url, keys=(KeySpec("key-1", "1234", SECRET),), options=options))


def sent(conversation: Conversation, model: ModelSpec, stream: bool = False) -> tuple[Any, list[str]]:
    """The body as it goes out, and what was dropped."""
    leftovers = Leftovers(conversation, model, "DashScope")
    return json.loads(msgspec.json.encode(to_wire(conversation, model, leftovers, stream=stream))), sorted(leftovers.names)


def embeddings(**body: Any) -> ChatRequest:
    fields = msgspec.json.decode(msgspec.json.encode({"model": "alias", **body}), type=dict[str, msgspec.Raw])
    dialect = cast(Dialect, SimpleNamespace(NAME="embeddings"))
    return ChatRequest(dialect, "alias", False, False, None, 1, fields)
