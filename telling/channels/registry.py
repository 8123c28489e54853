"""The kinds of receivers there are, by the name that rows have for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from django.utils.translation import gettext_lazy

from telling.channels.base import Channel
from telling.channels.dingtalk import DingTalk
from telling.channels.email import Email
from telling.channels.feishu import Feishu
from telling.channels.webhook import SignedWebhook
from telling.channels.wecom import WeCom

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

CHANNELS: Final[Mapping[str, Channel]] = {
    "webhook": SignedWebhook(),
    "email": Email(),
    "dingtalk": DingTalk(),
    "feishu": Feishu(),
    "wecom": WeCom(),
}


def choices() -> list[tuple[str, StrOrPromise]]:
    return [(name, gettext_lazy(channel.label)) for name, channel in CHANNELS.items()]
