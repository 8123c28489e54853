"""Events, through nginx on the whole of deploy/: the tests of tests/e2e/test_events.py, on another installation."""

from tests.e2e.test_events import *  # noqa: F403
