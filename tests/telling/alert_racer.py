"""A process that fires and ends the same alerts as its siblings do, at the same time; prints how many of them it was that did."""

from __future__ import annotations

import sys

import django

NOW = 1_800_000_000.0
SUBJECTS = 30


def main() -> None:
    django.setup()
    from telling.alert_models import Alert, AlertRule
    from telling.alerts import evaluation
    from telling.alerts.conditions import Reading
    from telling.alerts.moment import Moment

    rule = AlertRule.objects.get(name="raced")
    print("ready", flush=True)
    sys.stdin.readline()
    turns = sum(evaluation.take_turn(NOW + 15 * number, 15) for number in range(SUBJECTS))
    fired = sum(evaluation.fire(rule, Reading(str(number), "it", 1, "It is."), Moment(NOW)) for number in range(SUBJECTS))
    print(f"fired {turns} {fired}", flush=True)
    sys.stdin.readline()
    ended = sum(evaluation.resolve(alert, Moment(NOW + 60), "It is over.") for alert in Alert.objects.order_by("pk"))
    print(f"ended {ended}", flush=True)


if __name__ == "__main__":
    main()
