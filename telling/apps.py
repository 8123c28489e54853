from django.apps import AppConfig
from django.db.models.signals import post_migrate


class TellingConfig(AppConfig):
    name = "telling"
    label = "telling"
    verbose_name = "Webhooks and events"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.conf import settings

        from access import roles, scope
        from telling import events, outbox
        from telling.models import Webhook, WebhookSecret

        # Only now are there the permissions of this app that roles speak of.
        post_migrate.connect(roles.sync_groups, sender=self, dispatch_uid="telling.roles")
        scope.rows_of_team(Webhook, "team_id")
        scope.rows_of_team(WebhookSecret, "team_id")
        outbox.listen()
        if settings.LLM_ENABLE_WEBSOCKET:
            events.listen()
