from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class AccessConfig(AppConfig):
    name = "access"
    label = "access"
    verbose_name = "Callers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from access import checks, roles  # noqa: F401  (registers them)

        # After the last app, the permissions of all that roles speak of are there.
        last = [app for app in apps.get_app_configs() if app.models_module is not None][-1]
        post_migrate.connect(roles.sync_groups, sender=last, dispatch_uid="access.roles")
