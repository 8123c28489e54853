"""OpenAI's models at Azure: the compatible wire under Azure's own addresses, in either of its two styles.

`classic`: `{resource}/openai/deployments/{deployment}/chat/completions?api-version=…`; `v1`: `{resource}/openai/v1/…`.
Source: Azure OpenAI's REST reference and API lifecycle pages, and what its SDK sends.
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

from core.config import ModelSpec, ProviderSpec
from providers.adapters.base import FormField
from providers.adapters.openai_compatible import OpenAICompatible
from providers.adapters.quirks import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Quirks

CLASSIC, V1 = "classic", "v1"
DEFAULT_API_VERSION = "2024-10-21"
# Of one deployment; every other path is the resource's.
_OF_A_DEPLOYMENT = ("/chat/completions", "/completions", "/embeddings")
_QUIRKS = Quirks(
    key_header="api-key",
    endpoints=frozenset({CHAT, EMBEDDINGS, COMPLETIONS, RESPONSES}),
    max_tokens_field="max_completion_tokens",
    developer_role=True,
    strict_messages=True,
)


class Azure(OpenAICompatible):
    form: ClassVar[tuple[FormField, ...]] = (
        FormField("api_key", "API key", "Either key of the resource: Azure portal, Keys and Endpoint.", required=True, secret=True),
        FormField("base_url", "Address", "The resource's endpoint, e.g. https://my-resource.openai.azure.com.", required=True),
        FormField(
            "style",
            "API style",
            "v1 needs no version and serves other vendors' models too; classic is for resources and tools that are bound to a version.",
            default=V1,
            choices=((V1, "v1: …/openai/v1/"), (CLASSIC, "classic: …/openai/deployments/…?api-version=")),
        ),
        FormField("api_version", "API version", f"Empty: {DEFAULT_API_VERSION} in the classic style, none in v1."),
        FormField(
            "deployments",
            "Deployments",
            'Model id → name of its deployment, where they differ: {"gpt-4o": "my-gpt-4o"}. '
            "If it is filled in, these are the models that are listed; otherwise the list is the catalogue, deployed or not.",
            mapping=True,
        ),
    )

    def __init__(self, spec: ProviderSpec) -> None:
        super().__init__(spec, _QUIRKS)
        self._deployments: dict[str, str] = dict(spec.options.get("deployments") or {})
        self._classic = spec.options.get("style") == CLASSIC
        version = str(spec.options.get("api_version") or (DEFAULT_API_VERSION if self._classic else ""))
        self._version = f"?api-version={quote(version, safe='')}" if version else ""
        # The portal shows the address with or without the path.
        self._resource = self._base_url.removesuffix("/v1").removesuffix("/openai").rstrip("/")

    def url(self, path: str, model_id: str) -> str:
        if not self._classic:
            return f"{self._resource}/openai/v1{path}{self._version}"
        deployment = f"/deployments/{quote(model_id, safe='')}" if path in _OF_A_DEPLOYMENT else ""
        return f"{self._resource}/openai{deployment}{path}{self._version}"

    def wire_model_id(self, model: ModelSpec) -> str:
        """The deployment, in the address as in the body."""
        return self._deployments.get(model.model_id, model.model_id)

    def read_models(self, body: bytes) -> list[str]:
        """See `Adapter.read_models`. Azure has no list of deployments under this key: the admin's own is the truth where there is one."""
        listed = super().read_models(body)
        return sorted(self._deployments) or listed
