"""Migrates the database that the environment names and makes the first credentials, by the product's own services.

python -m tests.faults.prepare → one line of JSON: username, password, api_key, admin_token
"""

from __future__ import annotations

import os


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmcontrol.settings")
    import django

    django.setup()
    import msgspec
    from django.core.management import call_command

    from llmcontrol.first_start import ensure_credentials

    call_command("migrate", verbosity=0, interactive=False)
    print(msgspec.json.encode(ensure_credentials(reset=False)).decode())


if __name__ == "__main__":
    main()
