"""Robots of DingTalk groups.

Signing ("加签"): the query gets `timestamp` (milliseconds) and `sign`, the base64 of HMAC-SHA256 over "timestamp\\nsecret" with the
secret as its key. Body: `msgtype` and `text.content`. Answer: `errcode` 0, or e.g. 310000 "sign not match".
Source: https://open.dingtalk.com/document/orgapp/customize-robot-security-settings and …/custom-bot-send-message-type (read 2026-11-21).
"""

from __future__ import annotations

import base64
import hmac
from typing import Any
from urllib.parse import urlencode

from telling.channels.base import Chat, Message, Target


class DingTalk(Chat):
    label = "DingTalk"

    def call(self, target: Target, message: Message, now_s: float) -> tuple[str, dict[str, Any]]:
        url = target.url
        if target.secret:
            timestamp = str(int(now_s * 1000))
            signed = hmac.new(target.secret.encode(), f"{timestamp}\n{target.secret}".encode(), "sha256").digest()
            query = urlencode({"timestamp": timestamp, "sign": base64.b64encode(signed).decode()})
            url += f"{'&' if '?' in url else '?'}{query}"
        return url, {"msgtype": "text", "text": {"content": message.text}}
