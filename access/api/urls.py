from __future__ import annotations

from django.urls import path
from rest_framework.routers import SimpleRouter

from access.api.explanations import ExplanationViewSet
from access.api.views import ApiKeyViewSet, BudgetViewSet, GrantViewSet, MemberViewSet, TeamViewSet

router = SimpleRouter(trailing_slash=False)
router.register("llm/teams", TeamViewSet, basename="teams")
router.register("llm/members", MemberViewSet, basename="members")
router.register("llm/grants", GrantViewSet, basename="grants")
router.register("llm/keys", ApiKeyViewSet, basename="keys")
router.register("llm/budgets", BudgetViewSet, basename="budgets")
urlpatterns = [
    *router.urls,
    path("requests/<str:request_id>/explain", ExplanationViewSet.as_view({"get": "explain"}), name="request-explain"),
]
