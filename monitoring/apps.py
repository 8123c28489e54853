from django.apps import AppConfig
from django.db.models.signals import post_migrate


class MonitoringConfig(AppConfig):
    name = "monitoring"
    label = "monitoring"
    verbose_name = "What happened"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from monitoring.rollups import fill_if_empty

        post_migrate.connect(fill_if_empty, sender=self)

        from monitoring import audit_capture, audit_people, audit_triggers

        audit_capture.install()
        audit_people.watch()
        post_migrate.connect(audit_triggers.install, sender=self, dispatch_uid="monitoring.audit_triggers")
