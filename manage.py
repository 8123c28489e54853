#!/usr/bin/env python
"""Every command of the product starts here."""

import gc
import os
import sys


def main() -> None:
    gc.set_threshold(50_000)  # looking for garbage in what is being imported, where there is none, was a sixth of a start
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmcontrol.settings")
    from core.errors import ConfigurationError

    try:
        if sys.argv[1:2] == ["quickstart"]:
            from llmcontrol import bootstrap

            bootstrap.prepare(sys.argv[2:])
        from django.core.management import execute_from_command_line

        from monitoring import audit_context

        command = sys.argv[1] if len(sys.argv) > 1 else ""
        with audit_context.acting(audit_context.in_the_shell if command == "shell" else audit_context.running(command)):
            execute_from_command_line(sys.argv)
    except ConfigurationError as exc:
        print(f"llmcontrol does not start: {exc}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
