"""G28: whatever is sent to whatever route of REST: an answer below 500, and no exception that nobody caught.

Bodies and parameters are drawn from the OpenAPI description and then bent: other types, other sizes, unknown names, other ids.
FUZZ_EXAMPLES=10000 is the long run. The data plane: `test_a38_json.py`, `test_g28_stream_fuzz.py`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from tests.security.access_fixtures import Tenants
from tests.security.test_a12_authorisation_table import _PARAMETER, REST_METHODS, routes, rows_of, undone, with_ids

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 200)
ROUTES = sorted({route for route in routes() if route.startswith("/api/")})
JUNK_IDS = ["0", "-1", "a" * 300, "é", "%00", "..", "task_" + "0" * 36, "00000000-0000-0000-0000-000000000000", "9" * 40, "'--"]
NAMES = ["id", "name", "team", "model", "limit", "config", "is_active", "since", "cursor", "page", "page_size", "group_by", "unheard_of"]
SCALARS = (st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)) | (
    st.text(max_size=20) | st.sampled_from(["", "x" * 5_000, "\x00", "\ud800", "2026-13-45T99:99:99Z", "1e400", "'; DROP TABLE x; --"])
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4), max_leaves=8
)
FORMATS: Mapping[str, st.SearchStrategy[Any]] = {
    "uuid": st.uuids().map(str),
    "date-time": st.datetimes().map(lambda at: f"{at.isoformat()}Z"),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, places=6).map(str),
}
Schema = Mapping[str, Any]


class Description:
    """What the API says of itself: how a body and the parameters of a route look."""

    def __init__(self) -> None:
        said: Any = SchemaGenerator().get_schema(request=None, public=True)
        self._components: Schema = said["components"]["schemas"]
        self._paths = {re.sub(r"\{\w+\}", "{id}", path): operations for path, operations in said["paths"].items()}

    def body(self, path: str, method: str) -> st.SearchStrategy[Any]:
        content = self._of(path, method).get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema")
        return ANYTHING if schema is None else self._bent(schema) | ANYTHING

    def query(self, path: str, method: str) -> st.SearchStrategy[dict[str, Any]]:
        declared = [each for each in self._of(path, method).get("parameters", ()) if each["in"] == "query"]
        drawn = {each["name"]: self.value(each["schema"]) | st.text(max_size=20) for each in declared}
        more = st.dictionaries(st.sampled_from(NAMES), st.text(max_size=20), max_size=2)
        return st.builds(lambda said, bent: {**said, **bent}, st.fixed_dictionaries({}, optional=drawn), more)

    def value(self, schema: Schema, depth: int = 0) -> st.SearchStrategy[Any]:
        """Something of that shape. What is not described in full is anything."""
        if "$ref" in schema:
            schema = self._components[schema["$ref"].rpartition("/")[2]]
        if parts := schema.get("oneOf") or schema.get("anyOf") or schema.get("allOf"):
            return st.one_of([self.value(part, depth) for part in parts])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        kind = schema.get("type")
        if kind == "object" and depth < 3:
            fields = {name: self.value(field, depth + 1) for name, field in schema.get("properties", {}).items()}
            return st.fixed_dictionaries({}, optional=fields)
        if kind == "array" and depth < 3:
            return st.lists(self.value(schema.get("items", {}), depth + 1), max_size=3)
        if kind == "string":
            return FORMATS.get(schema.get("format", ""), st.text(max_size=30))
        return {"integer": st.integers(), "number": st.floats(), "boolean": st.booleans()}.get(str(kind), ANYTHING)

    def _bent(self, schema: Schema) -> st.SearchStrategy[Any]:
        """As described, and with one or two fields that are something else."""
        bends = st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=2)
        return st.builds(lambda good, bent: {**good, **bent} if isinstance(good, dict) else good, self.value(schema), bends)

    def _of(self, path: str, method: str) -> Schema:
        found: Schema = self._paths.get(path, {}).get(method, {})
        return found


def test_every_route_answers_whatever_it_is_sent(tenants: Tenants) -> None:
    client: APIClient = tenants.rest(tenants.people["superuser"])
    described, rows = Description(), rows_of(tenants)
    assert len(ROUTES) > 30
    statuses: set[int] = set()

    @settings(deadline=None, max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        route, method = data.draw(st.sampled_from(ROUTES)), data.draw(st.sampled_from(REST_METHODS))
        path = _PARAMETER.sub("{id}", route)
        url = with_ids(route, tenants, rows)
        if "{id}" in path and data.draw(st.booleans()):
            url = _PARAMETER.sub(quote(data.draw(st.sampled_from(JUNK_IDS)), safe="%"), route)
        query = urlencode(data.draw(described.query(path, method)), doseq=True, errors="surrogatepass")
        body = data.draw(described.body(path, method)) if method != "get" else None
        sent = {} if body is None else {"data": json.dumps(body), "content_type": "application/json"}
        with undone():
            answer = getattr(client, method)(f"{url}?{query}", **sent)
        assert answer.status_code < 500, (method, url, query, body)
        statuses.add(answer.status_code)

    ask()
    assert {200, 400, 404, 405} <= statuses, "it met next to nothing"
