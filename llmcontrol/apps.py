import sys

from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin import apps as django_admin


class AdminConfig(django_admin.AdminConfig):
    """The admin, with a site whose every page asks `access.scope` who may see which rows."""

    default = False
    default_site = "access.admin_site.Site"

    def ready(self) -> None:
        """All models are loaded, and no admin module is: what those read of models is translated when it is drawn."""
        from llmcontrol.languages import labels
        from monitoring.sentences import tell_errors

        labels.translate()
        tell_errors()
        super().ready()


class LlmcontrolConfig(AppConfig):
    default = True
    name = "llmcontrol"
    label = "llmcontrol"
    verbose_name = "llmcontrol"

    def ready(self) -> None:
        """This app is the last: all others, the admin's modules included, have been loaded."""
        for name in settings.HELD_BACK:
            if sys.modules.get(name, self) is None:
                del sys.modules[name]
        from django.contrib.admin.views.main import ChangeList

        from llmcontrol import playground
        from llmcontrol.admin_search import BoundedSearch
        from monitoring.signals import request_links_wanted

        ChangeList.search_form_class = BoundedSearch
        request_links_wanted.connect(playground.links_for, dispatch_uid="llmcontrol.playground")
