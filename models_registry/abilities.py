"""What a model is known not to have, of all that a request may need. Pure.

A connection test is believed first. Without one the list of capabilities is, where it says anything of the kind: a list that only
holds what a connection test writes, or nothing, says nothing of images.
"""

from __future__ import annotations

from typing import Any

# What a request may need → the check of a connection test that tells, the words for it in a list of capabilities.
_NEEDS = {
    "tools": ("tools", {"tools"}),
    "json_schema": ("json_schema", {"json_schema"}),
    "images": ("", {"images", "vision"}),
}
# One of these shows that somebody, or the catalogue, wrote down what the model can do.
_TELLING = frozenset({"json", "images", "vision", "audio", "video", "files", "pdf", "reasoning", "text"})
_FAILED = {"fail": "its connection test failed for {}", "not_offered": "its connection test found no {}"}


def lacking(capabilities: Any, tested: Any) -> dict[str, str]:
    """Need → how it is known that the model does not have it. Both arguments are JSON columns, and may hold anything."""
    listed = {word for word in capabilities if isinstance(word, str)} if isinstance(capabilities, list) else set()
    results = tested if isinstance(tested, dict) else {}
    found = {}
    for need, (check, words) in _NEEDS.items():
        result = results.get(check)
        if isinstance(result, str) and result in _FAILED:
            found[need] = _FAILED[result].format(need.replace("_", " "))
        elif result != "pass" and listed & _TELLING and not listed & words:
            found[need] = f"its capabilities do not name {need.replace('_', ' ')}"
    # No test asks for JSON without a schema, and no catalogue tells: a model that fails with a schema needs a person's word for it.
    if results.get("json_schema") in _FAILED and "json" not in listed:
        found["json"] = found["json_schema"]
    return found
