"""The stack of deploy/, once for the end-to-end tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.stack import stack
from tests.e2e.conftest import QUICK, recorded, replay_url, schema, timings, vendor  # noqa: F401  (fixtures)
from tests.e2e.control import ECHO, Control


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """Through nginx, to two gateways."""
    with stack(tmp_path_factory.mktemp("stack"), QUICK) as control:
        echo = control.model(control.provider("", kind="echo", name="echo"), ECHO, alias=ECHO)
        control.price(echo, input="0", output="0")
        control.apply()
        yield control
