import sys

from django.apps import AppConfig


class LlmcontrolConfig(AppConfig):
    name = "llmcontrol"
    label = "llmcontrol"
    verbose_name = "llmcontrol"

    def ready(self) -> None:
        """This app is the last: all others, the admin's modules included, have been loaded."""
        if sys.modules.get("psycopg", self) is None:
            del sys.modules["psycopg"]
