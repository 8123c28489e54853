from __future__ import annotations

from rest_framework.routers import SimpleRouter

from telling.api.views import WebhookSecretViewSet, WebhookViewSet

router = SimpleRouter(trailing_slash=False)
router.register("webhooks", WebhookViewSet, basename="webhooks")
router.register("webhook-secrets", WebhookSecretViewSet, basename="webhook-secrets")
urlpatterns = router.urls
