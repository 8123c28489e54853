"""JSON schemas of results, as administrators write them: what may stand in one, and whether an answer follows it.

The checking is jsonschema's (draft 2020-12), loaded where it is needed first. What a model's answer must not be able to do to this
process is refused: addresses and references, which could be fetched or never end, and patterns, which can take for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

MAX_BYTES, MAX_DEPTH = 16_384, 12
_MAX_SHOWN = 300
_REFUSED = {
    **dict.fromkeys(
        ("$ref", "$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor", "$defs", "definitions"),
        "write it out where it belongs, for not every vendor follows references",
    ),
    **dict.fromkeys(("pattern", "patternProperties"), "patterns are not checked here; say what is meant in the description"),
}
# Where schemas stand within a schema: one, a list of them, or by name.
_ONE = (
    *("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_BY_NAME = ("properties", "dependentSchemas")


def refusal(schema: Any) -> str:
    """Why it cannot be the schema of a result, as a sentence; "" where it can."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        return 'A result is a JSON object: begin with {"type": "object", "properties": {…}}.'
    if len(msgspec.json.encode(schema)) > MAX_BYTES:
        return f"It is longer than {MAX_BYTES:,} bytes."
    for path, part in _parts(schema, "$", 1):
        if path.count(".") > 2 * MAX_DEPTH:
            return f"It is nested deeper than {MAX_DEPTH} levels."
        for word, why in _REFUSED.items():
            if word in part:
                return f"At {path} stands {word!r}: {why}."
    return _fault_of(schema)


class Shape:
    """Reads answers that follow `schema`; in place of a `msgspec.json.Decoder`."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        from jsonschema import Draft202012Validator

        self._validator = Draft202012Validator(schema)

    def decode(self, text: str) -> Any:
        """Raises msgspec.DecodeError, which says what is wrong and where."""
        from jsonschema.exceptions import best_match

        try:
            answer = msgspec.json.decode(text)
            wrong = best_match(self._validator.iter_errors(answer))
        except (RecursionError, OverflowError) as exc:
            raise msgspec.ValidationError(f"It cannot be checked: {type(exc).__name__}") from None
        if wrong is not None:
            raise msgspec.ValidationError(f"{wrong.json_path}: {wrong.message[:_MAX_SHOWN]}")
        return answer


def _fault_of(schema: Mapping[str, Any]) -> str:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as fault:
        return f"It is no JSON schema: {fault.json_path}: {fault.message[:_MAX_SHOWN]}."
    return ""


def _parts(part: Any, path: str, depth: int) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Every schema in a schema, with where it stands. Names of properties are no words of it."""
    if not isinstance(part, Mapping):
        return
    yield path, part
    if depth > MAX_DEPTH + 1:
        return
    for word in _ONE:
        yield from _parts(part.get(word), f"{path}.{word}", depth + 1)
    for word in _LISTS:
        found = part.get(word)
        for place, each in enumerate(found if isinstance(found, list) else ()):
            yield from _parts(each, f"{path}.{word}[{place}]", depth + 1)
    for word in _BY_NAME:
        found = part.get(word)
        for name, each in found.items() if isinstance(found, Mapping) else ():
            yield from _parts(each, f"{path}.{word}.{name}", depth + 1)
