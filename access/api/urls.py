from __future__ import annotations

from rest_framework.routers import SimpleRouter

from access.api.views import ApiKeyViewSet, TeamViewSet

router = SimpleRouter(trailing_slash=False)
router.register("llm/teams", TeamViewSet, basename="teams")
router.register("llm/keys", ApiKeyViewSet, basename="keys")
urlpatterns = router.urls
