from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AccessConfig(AppConfig):
    name = "access"
    label = "access"
    verbose_name = "Callers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from access import checks, roles  # noqa: F401  (registers them)

        # After this app, the permissions of all apps that roles speak of are there.
        post_migrate.connect(roles.sync_groups, sender=self, dispatch_uid="access.roles")
