"""Sockets, through nginx on the whole of deploy/: the tests of tests/e2e/test_websocket.py, on another installation."""

from tests.e2e.test_websocket import *  # noqa: F403
