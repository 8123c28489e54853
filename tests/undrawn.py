"""Views answer, and nothing is drawn: for tests of who is let in and of what is asked of the database, which draw a page elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.template.response import TemplateResponse
from drf_spectacular.generators import SchemaGenerator

from access.admin_site import Site


@contextmanager
def undrawn() -> Iterator[None]:
    """Most of a page's time goes into its template and its navigation, most of the description's into reading every view."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TemplateResponse, "rendered_content", "")
        patch.setattr(Site, "each_context", lambda site, request: {})
        patch.setattr(SchemaGenerator, "get_schema", lambda *_, **__: {})
        yield
