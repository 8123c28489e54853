from __future__ import annotations

from django.urls import path
from rest_framework.routers import SimpleRouter

from telling.api.views import WebhookSecretViewSet, WebhookViewSet, WsTicketView

router = SimpleRouter(trailing_slash=False)
router.register("webhooks", WebhookViewSet, basename="webhooks")
router.register("webhook-secrets", WebhookSecretViewSet, basename="webhook-secrets")
urlpatterns = [*router.urls, path("ws-ticket", WsTicketView.as_view(), name="ws-ticket")]
