from django.apps import AppConfig


class TasksConfig(AppConfig):
    name = "tasks"
    label = "tasks"
    verbose_name = "Queued work"
    default_auto_field = "django.db.models.BigAutoField"
