"""Robots of Feishu and Lark groups.

Signing ("签名校验"): the body gets `timestamp` (seconds, as text) and `sign`, the base64 of HMAC-SHA256 over nothing
with "timestamp\\nsecret" as its key. Body: `msg_type` and `content.text`. Answer: `code` 0, or e.g. 19021 "sign match fail".
Source: https://open.larkoffice.com/document/ukTMukTMukTM/ucTM5YjL3ETO24yNxkjN.md, "自定义机器人使用指南" (read 2026-11-21).
"""

from __future__ import annotations

import base64
import hmac
from typing import Any

from telling.channels.base import Chat, Message, Target


class Feishu(Chat):
    label = "Feishu / Lark"

    def call(self, target: Target, message: Message, now_s: float) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {"msg_type": "text", "content": {"text": message.text}}
        if target.secret:
            timestamp = str(int(now_s))
            signed = hmac.new(f"{timestamp}\n{target.secret}".encode(), b"", "sha256").digest()
            body |= {"timestamp": timestamp, "sign": base64.b64encode(signed).decode()}
        return target.url, body
