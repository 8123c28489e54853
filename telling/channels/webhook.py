"""Webhooks of Standard Webhooks, signed as those of tasks are (docs/webhooks.md)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from telling import signing
from telling.carrier import Carrier
from telling.channels.base import Message, Target
from telling.outcome import Outcome


class SignedWebhook:
    label = "Webhook"
    fields: Mapping[str, bool] = {"url": True, "secret": True}  # nosec B105 (a name)

    def problem(self, target: Target) -> tuple[str, str] | None:
        try:
            signing.headers("msg", 0, b"", [target.secret])
        except ValueError:
            return "secret", "Write whsec_ and the base64 of 24 to 64 random bytes, such as: openssl rand -base64 32"
        return None

    async def send(self, target: Target, message: Message, message_id: str, carrier: Carrier) -> Outcome:
        told = {name: value for name, value in msgspec.structs.asdict(message).items() if name not in ("event", "at")}
        moment = datetime.fromtimestamp(message.at, UTC)
        body = msgspec.json.encode({"event_type": f"alert.{message.event}", "timestamp": moment, "data": told})
        signed = signing.headers(message_id, int(carrier.wall()), body, [target.secret])
        return await carrier.post(target.url, {"content-type": "application/json", **signed}, body)
