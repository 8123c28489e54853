from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate


class GatewayConfig(AppConfig):
    name = "gateway.config"
    label = "gateway_config"
    verbose_name = "Gateway"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from gateway.config.publisher import install, make_way

        pre_migrate.connect(make_way, sender=self, dispatch_uid="gateway.config.publisher")
        post_migrate.connect(install, sender=self, dispatch_uid="gateway.config.publisher")
