from django.apps import AppConfig


class ProvidersConfig(AppConfig):
    name = "providers"
    label = "providers"
    verbose_name = "Vendors"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.conf import settings

        from providers import checks  # noqa: F401  (registers them)
        from providers.adapters import registry

        registry.allow_custom(settings.CUSTOM_ADAPTERS)
