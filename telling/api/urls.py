from __future__ import annotations

from django.urls import path
from rest_framework.routers import SimpleRouter

from telling.api.alerts import AlertChannelViewSet, AlertRuleViewSet, AlertViewSet
from telling.api.views import WebhookSecretViewSet, WebhookViewSet, WsTicketView

router = SimpleRouter(trailing_slash=False)
router.register("webhooks", WebhookViewSet, basename="webhooks")
router.register("webhook-secrets", WebhookSecretViewSet, basename="webhook-secrets")
router.register("llm/alerts", AlertRuleViewSet, basename="alert-rules")
router.register("llm/alert-channels", AlertChannelViewSet, basename="alert-channels")
router.register("llm/alert-history", AlertViewSet, basename="alert-history")
urlpatterns = [*router.urls, path("ws-ticket", WsTicketView.as_view(), name="ws-ticket")]
