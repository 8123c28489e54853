from django.apps import AppConfig


class ModelsRegistryConfig(AppConfig):
    name = "models_registry"
    label = "models_registry"
    verbose_name = "Models and prices"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from models_registry import checks  # noqa: F401  (registers them)
