"""Teams and their limits. Their members and API keys are people and secrets of one house, and stay there."""

from __future__ import annotations

from access.api.serializers import TeamSerializer
from access.models import Team
from llmcontrol.portable.kind import Serialized


class Teams(Serialized):
    section, model, serializer = "teams", Team, TeamSerializer
