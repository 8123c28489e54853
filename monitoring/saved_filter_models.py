"""Filters of the admin's lists under names, as rows."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class SavedFilter(models.Model):
    """A filter of one of the admin's lists, under a name: its owner's, or everybody's who sees that list. Written by
    `monitoring.saved_filters` alone."""

    MAX_NAME, MAX_QUERY = 60, 2000

    class List(models.TextChoices):
        REQUESTS = "requestlog", "Requests"
        USAGE = "usagerecord", "Usage"
        AUDIT = "auditevent", "Audit trail"

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_filters")
    listing = models.CharField("list", max_length=20, choices=List.choices)
    name = models.CharField(max_length=MAX_NAME)
    query = models.CharField(max_length=MAX_QUERY, help_text="As it stands in the list's address.")
    shared = models.BooleanField("for everybody", default=False)

    class Meta:
        ordering = ["name", "pk"]
        default_permissions = ()
        permissions = [("share_savedfilter", "Can share saved filters with everybody, and delete shared ones")]
        constraints = [models.UniqueConstraint(fields=["owner", "listing", "name"], name="saved_filter_name")]

    def __str__(self) -> str:
        return f"{self.get_listing_display()}: {self.name}"
