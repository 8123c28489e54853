"""Which configuration is in force: a number to read. Triggers raise it; nobody types it."""

from __future__ import annotations

from django.contrib import admin
from unfold.admin import ModelAdmin

from gateway.config.models import ConfigVersion
from monitoring.pages import ReadOnly


@admin.register(ConfigVersion)
class ConfigVersionAdmin(ReadOnly, ModelAdmin):
    list_display = ("version",)
