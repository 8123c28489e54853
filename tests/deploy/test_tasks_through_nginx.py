"""Tasks, worked on by processes of their own, through nginx on the whole of deploy/: tests/e2e/test_tasks.py on another installation."""

from tests.e2e.test_tasks import *  # noqa: F403

del control  # noqa: F821  (its own two engines: this folder's installation takes their place)
