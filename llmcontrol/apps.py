from django.apps import AppConfig


class LlmcontrolConfig(AppConfig):
    name = "llmcontrol"
    label = "llmcontrol"
    verbose_name = "llmcontrol"
