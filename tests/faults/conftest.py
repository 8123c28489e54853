"""The stage's fixtures and options. README.md shows how to use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults import notes
from tests.faults.backends import POSTGRES, SQLITE, Template
from tests.faults.books import Books
from tests.faults.goals import all_double_charges
from tests.faults.judge import Judge, Result
from tests.faults.leaks import Search
from tests.faults.loads import FULL, SHORT, LoadSize
from tests.faults.report import FAULTS, page
from tests.faults.stage import Stage
from tests.faults.vendor import Vendor

HERE = Path(__file__).parent
_FAILED = pytest.StashKey[bool]()
_BACKEND = pytest.StashKey[str]()
_RESULTS = pytest.StashKey[list[Result]]()
_CHARGED = pytest.StashKey[list[tuple[int, int]]]()
_NOTES = pytest.StashKey[list[notes.Note]]()
_BOOKS = pytest.StashKey[Books]()
_SEARCH = pytest.StashKey[Search]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--fault-load", choices=["short", "full"], default="short", help="10 clients for 8 s, or 50 clients for 60 s")
    group.addoption("--fault-notes", metavar="FILE", type=Path, help="note there, test by test, what was measured")
    group.addoption("--fault-resume", action="store_true", help="leave out what the notes say has passed under this load")
    group.addoption("--fault-canary", action="store_true", help="search every stage for planted secrets at its test's end")
    group.addoption("--fault-report", metavar="FILE", help="write the table of figures there at the end, of this run and of the notes")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_NOTES] = []
    config.stash[_BOOKS] = Books()
    config.stash[_SEARCH] = Search()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_BOOKS].close()


@pytest.hookimpl(tryfirst=True)  # before -m is looked at
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    passed = {note.test for note in _earlier(config) if note.passed} if config.getoption("--fault-resume") else set()
    items[:] = [item for item in items if item.nodeid not in passed]
    for item in [item for item in items if HERE in item.path.parents]:
        item.add_marker("fault")
        short = item.get_closest_marker("short")
        if f"[{POSTGRES}" in item.name and (short is None or short.args != ("both",)):
            item.add_marker("full_only")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    item.stash[_FAILED] = outcome.get_result().failed or item.stash.get(_FAILED, False)
    if call.when == "teardown" and _RESULTS in item.stash:
        _note(item)


def _note(item: pytest.Item) -> None:
    config, stash = item.config, item.stash
    note = notes.Note(
        item.nodeid, config.getoption("--fault-load"), stash[_BACKEND], not stash[_FAILED], stash[_RESULTS], stash.get(_CHARGED, [])
    )
    config.stash[_NOTES].append(note)
    if path := config.getoption("--fault-notes"):
        notes.write(path, note)


def _earlier(config: pytest.Config) -> list[notes.Note]:
    path = config.getoption("--fault-notes")
    return [note for note in notes.read(path) if note.load == config.getoption("--fault-load")] if path else []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    noted = notes.latest([*_earlier(config), *config.stash[_NOTES]])
    results = [result for note in noted for result in note.results] + all_double_charges(noted)
    if results:
        terminalreporter.section("faults")
    for result in sorted(results):
        mark = "" if result.met else f"  MISSED {result.misses}".rstrip()
        what = f"{result.fault} {result.figure}: {result.measured} (goal {result.goal}, {result.backend}){mark}"
        terminalreporter.write_line(what)
    if checked := config.stash[_BOOKS].checked:
        terminalreporter.write_line(f"ledger_check: the books of {checked} stages balance")
    if (search := config.stash[_SEARCH]).stages:
        told = f"{search.files} files of {search.bytes / 2**20:.0f} MiB and {search.answers} answers of {search.stages} stages"
        terminalreporter.write_line(f"canary: {told} were searched for planted secrets")
    if path := config.getoption("--fault-report"):
        Path(path).write_text(page(results, config.getoption("--fault-load")))
        terminalreporter.write_line(f"{path} written: {len({result.fault for result in results} & FAULTS.keys())} of {len(FAULTS)} faults")


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> LoadSize:
    return FULL if request.config.getoption("--fault-load") == "full" else SHORT


@pytest.fixture(params=[SQLITE, POSTGRES])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Judge:
    """Of a test without a backend, the figures are of neither: say `backend` where they are of one."""
    backend = request.getfixturevalue("backend") if "backend" in request.fixturenames else SQLITE
    request.node.stash[_BACKEND] = backend
    request.node.stash[_RESULTS] = []
    return Judge(backend, request.node.stash[_RESULTS], busy=request.config.getoption("--fault-load") == "short")


@pytest.fixture(scope="session")
def templates() -> Iterator[Callable[[str], Template]]:
    made: dict[str, Template] = {}

    def template(backend: str) -> Template:
        if backend not in made:
            made[backend] = Template(backend)
        return made[backend]

    yield template
    for found in made.values():
        found.close()


@pytest.fixture(scope="session")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    vendor = Vendor(tmp_path_factory.mktemp("canary"), "canary")
    yield vendor
    vendor.close()


@pytest.fixture
def new_stage(
    request: pytest.FixtureRequest, backend: str, templates: Callable[[str], Template], canary: Vendor, tmp_path: Path
) -> Iterator[Callable[..., Stage]]:
    """At a test's end all that was charged on its stages is looked at together, whatever the test itself looked at."""
    stages: list[Stage] = []

    def make(
        *,
        workers: int = 2,
        machines: int = 1,
        env: Mapping[str, str] | None = None,
        postgres: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> Stage:
        folder = tmp_path / f"stage-{len(stages)}"
        folder.mkdir()
        template = templates(backend)
        with ExitStack() as undo:
            services = template.services(postgres)
            undo.callback(services.close)
            stage = Stage(folder, backend, services, template.credentials, Vendor(folder), canary, env)
            undo.pop_all()
        stages.append(stage)
        for _ in range(machines):
            stage.add_machine(workers, start=start)
        return stage

    yield make
    failed = request.node.stash.get(_FAILED, True)
    try:
        defects = [defect for stage in stages for defect in stage.defects()]
        if failed or defects:
            for log in [log for stage in stages for log in stage.logs() if log.exists()]:
                print(f"--- {log}\n{log.read_text(errors='replace')[-4000:]}")
        else:
            charges = [stage.double_charges() for stage in stages]
            request.node.stash[_CHARGED] = charges
            differences = [stage.difference(request.config.stash[_BOOKS]) for stage in stages]
            defects += [f"ledger_check: {difference}" for difference in differences if difference]
            if request.config.getoption("--fault-canary"):
                defects += [leak for stage in stages for leak in request.config.stash[_SEARCH].leaks(stage)]
            defects += [f"{doubled} double charges in {requests} requests" for requests, doubled in charges if doubled]
    finally:
        for stage in stages:
            stage.close()
    assert not defects, "\n".join(defects)


@pytest.fixture
def stage(new_stage: Callable[..., Stage]) -> Stage:
    return new_stage()
