from django.apps import AppConfig


class MonitoringConfig(AppConfig):
    name = "monitoring"
    label = "monitoring"
    verbose_name = "What happened"
    default_auto_field = "django.db.models.BigAutoField"
