"""docs/reference.md says what the code says."""

from __future__ import annotations

from tests.run.reference_page import COMMAND, PAGE, page


def test_the_page_is_what_the_code_says():
    assert PAGE.read_text() == page(), f"write it anew: {COMMAND}"
