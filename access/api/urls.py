from __future__ import annotations

from rest_framework.routers import SimpleRouter

from access.api.views import ApiKeyViewSet, BudgetViewSet, GrantViewSet, MemberViewSet, TeamViewSet

router = SimpleRouter(trailing_slash=False)
router.register("llm/teams", TeamViewSet, basename="teams")
router.register("llm/members", MemberViewSet, basename="members")
router.register("llm/grants", GrantViewSet, basename="grants")
router.register("llm/keys", ApiKeyViewSet, basename="keys")
router.register("llm/budgets", BudgetViewSet, basename="budgets")
urlpatterns = router.urls
