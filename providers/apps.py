from django.apps import AppConfig


class ProvidersConfig(AppConfig):
    name = "providers"
    label = "providers"
    verbose_name = "Vendors"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.conf import settings

        from monitoring.signals import provider_key_names_wanted
        from providers import checks, services  # noqa: F401  (checks registers them)
        from providers.adapters import registry

        registry.allow_custom(settings.CUSTOM_ADAPTERS)
        provider_key_names_wanted.connect(services.names_of_keys, dispatch_uid="providers.services")
