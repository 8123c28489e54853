"""What the configuration's watcher says after the gateway was told to end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llmcontrol.asgi import DataPlane


@pytest.mark.parametrize(("stopping", "serves"), [(False, True), (True, False)])
def test_a_look_at_the_configuration_does_not_open_again_what_is_closing(stopping: bool, serves: bool) -> None:
    gateway = SimpleNamespace(pipeline=None, stale=True, not_ready_because="")
    plane: Any = SimpleNamespace(_gateway=gateway, _pipeline=object(), _stopping=stopping)
    DataPlane._aged(plane, 0.0)
    assert (gateway.pipeline is not None) is serves
