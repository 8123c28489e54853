"""What a request says of itself: for whom it is, and for what. Only written down, and summed up; nothing is decided by it."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from core.chat import ChatRequest
from gateway.spending import user_of

Labels = tuple[str, str, str]  # user, task type, tag

NONE: Final[Labels] = ("", "", "")
_MAX_USER = 200  # the ledger's column
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,59}")


class _Metadata(msgspec.Struct):
    tag: object = None


_metadata = msgspec.json.Decoder(_Metadata)


def labels_of(request: ChatRequest) -> Labels:
    """The user, cut to 200 characters; the type of the queued task; and the tag of the header `x-llm-tag`, else of `metadata.tag`.

    What is no tag (1 to 60 letters, digits and `._:/-`, the first a letter or digit) is none: a request is never refused for it.
    """
    fields, tag = request.fields, request.tag
    if "user" not in fields and "metadata" not in fields:
        return ("", request.task_type, tag if _TAG.fullmatch(tag) else "") if tag or request.task_type else NONE
    tag = tag or _tag_in(fields.get("metadata"))
    return user_of(request)[:_MAX_USER].replace("\0", ""), request.task_type, tag if _TAG.fullmatch(tag) else ""


def _tag_in(metadata: msgspec.Raw | None) -> str:
    if metadata is None:
        return ""
    try:
        tag = _metadata.decode(metadata).tag
    except msgspec.MsgspecError:  # the vendor judges it
        return ""
    return tag if isinstance(tag, str) else ""
