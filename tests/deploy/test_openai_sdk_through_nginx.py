"""OpenAI's client, through nginx on the whole of deploy/: the tests of tests/e2e/test_openai_sdk.py, on another installation."""

from tests.e2e.test_openai_sdk import *  # noqa: F403
