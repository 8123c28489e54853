from django.apps import AppConfig


class TellingConfig(AppConfig):
    name = "telling"
    label = "telling"
    verbose_name = "Webhooks, events and alerts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.conf import settings

        from access import scope
        from telling import events, outbox
        from telling.models import Webhook, WebhookSecret

        scope.rows_of_team(Webhook, "team_id")
        scope.rows_of_team(WebhookSecret, "team_id")
        outbox.listen()
        if settings.LLM_ENABLE_WEBSOCKET:
            events.listen()
