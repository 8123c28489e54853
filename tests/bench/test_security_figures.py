"""The page of security figures: a goal that was missed stands out, and a figure that nobody measured is none."""

from __future__ import annotations

from bench.security_figures import MEASURES, Figure, Run, of_faults, page

NOTED = [
    ("F46", "revoked key refused everywhere after", "≤ 2 s", "0.9 s", True),
    ("F37", "memory of a stranger's head (G27)", "≤ 64 KiB", "70 KiB", False),
    ("F37", "memory of a stranger's body (G27), told", "≤ 64 KiB", "9 KiB", True),
]
RUN = Run(3, 0, NOTED, "pytest tests/x", 1.0)


def test_figures_of_fault_tests_keep_what_tells_them_apart() -> None:
    found = of_faults("G27", RUN, [("memory of a stranger's", "kept")])
    assert [(figure.what, figure.measured, figure.met) for figure in found] == [
        ("kept: head (G27)", "70 KiB", False),
        ("kept: body (G27), told", "9 KiB", True),
    ]


def test_what_nobody_measured_is_missed() -> None:
    (figure,) = of_faults("G24", RUN, [("secrets", "left")])
    assert (figure.measured, figure.met) == ("not measured", False)


def test_a_failed_run_meets_no_goal() -> None:
    assert not any(figure.met for figure in of_faults("G17", RUN._replace(failed=1), [("revoked", "refused after")]))
    assert not Run(0, 0, [], "", 0.0).clean


def test_the_page_shows_what_was_missed() -> None:
    written = page([Figure("G22", "found", "5", "5", True, "pytest a"), Figure("G29", "findings", "0", "3", False, "make scan")])
    assert "| G22 | found | 5 | 5 | `pytest a` |" in written
    assert "| G29 | findings | 0 | **3** | `make scan` |" in written


def test_every_goal_of_security_is_measured() -> None:
    assert list(MEASURES) == [*(f"G{number}" for number in range(17, 25)), "G27", "G28", "G29"]
