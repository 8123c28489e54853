"""What is known of what a model lacks."""

from __future__ import annotations

from typing import Any

import pytest

from models_registry.abilities import lacking


@pytest.mark.parametrize(
    ("capabilities", "tested", "lacks"),
    [
        ([], {}, set()),
        (["stream", "tools"], {}, set()),
        ([], {"tools": "fail"}, {"tools"}),
        ([], {"tools": "not_offered"}, {"tools"}),
        ([], {"tools": "pass", "json_schema": "pass"}, set()),
        (["images"], {}, {"tools", "json_schema"}),
        (["images"], {"tools": "pass"}, {"json_schema"}),
        (["tools", "json_schema", "reasoning"], {}, {"images"}),
        (["tools", "vision", "json_schema"], {}, set()),
        (["tools", "images"], {"tools": "fail"}, {"tools", "json_schema"}),
        ([], {"json_schema": "fail"}, {"json_schema", "json"}),
        (["json", "tools", "images"], {"json_schema": "fail"}, {"json_schema"}),
        (None, None, set()),
        ("images", ["tools"], set()),
        ([7, {"a": 1}], {"tools": {"no": "text"}}, set()),
    ],
)
def test_what_a_model_lacks(capabilities: Any, tested: Any, lacks: set[str]) -> None:
    assert set(lacking(capabilities, tested)) == lacks


def test_it_says_how_that_is_known() -> None:
    assert lacking(["images"], {"tools": "fail"}) == {
        "tools": "its connection test failed for tools",
        "json_schema": "its capabilities do not name json schema",
    }
    assert lacking([], {"tools": "not_offered"}) == {"tools": "its connection test found no tools"}
