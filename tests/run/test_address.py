"""A port that two servers want at the same moment."""

from __future__ import annotations

import pytest

from core.errors import ConfigurationError
from llmcontrol import server


@pytest.mark.parametrize("workers", [1, 2])
def test_who_binds_at_the_same_time_and_comes_second_is_told_so_in_a_sentence(workers: int) -> None:
    first = server.bind("127.0.0.1", 0)
    second = server.bind("127.0.0.1", first.getsockname()[1])  # as long as nobody listens, both may
    first.listen()
    with first, second, pytest.raises(ConfigurationError, match="choose another port with --port"):
        server.run(second, workers)
