"""Robots of WeCom (企业微信) groups: no signature, the key in the address is all there is.

Body: `msgtype` and `text.content` of at most 2048 bytes of UTF-8. Answer: `errcode` 0, or e.g. 93000 "invalid webhook url".
Source: https://developer.work.weixin.qq.com/document/path/91770 (read 2026-11-21).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telling.channels.base import Chat, Message, Target

_MAX_BYTES = 2048


class WeCom(Chat):
    label = "WeCom"
    fields: Mapping[str, bool] = {"url": True}

    def call(self, target: Target, message: Message, now_s: float) -> tuple[str, dict[str, Any]]:
        content = message.text.encode()[:_MAX_BYTES].decode(errors="ignore")
        return target.url, {"msgtype": "text", "text": {"content": content}}
