"""What every test starts from: no test reads or writes the home of the person who runs it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.doubles.aws import aws_double
from tests.doubles.aws.aws_double import AwsServer
from tests.doubles.buckets.buckets import Server, served
from tests.doubles.hosts import real_engine
from tests.doubles.hosts.real_engine import Engine
from tests.worlds import leftovers, skips

# `make test` draws the same examples every time. `long` (`make chaos`) draws others by `--hypothesis-seed`; where
# that is given with no profile, `seeded` does, since examples that are always the same ask for no seed.
# A shared machine is slow at random: a deadline would fail healthy code.
settings.register_profile(
    "ci", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None
)
settings.register_profile("seeded", parent=settings.get_profile("ci"), derandomize=False)
settings.register_profile("long", parent=settings.get_profile("seeded"), max_examples=2000, stateful_step_count=80)
# The first failure as it was drawn, in seconds: nothing is sought to make it shorter.
settings.register_profile(
    "first",
    parent=settings.get_profile("seeded"),
    max_examples=40,
    stateful_step_count=20,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


def pytest_configure(config: pytest.Config) -> None:
    default = "ci" if config.getoption("hypothesis_seed", None) is None else "seeded"
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or default)
    # Started in the background by a shell, we would ignore it, and so would every command that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        leftovers.sweep()
    # Before anything is collected, since that makes folders too. What a killed child leaves behind goes with the
    # session. Others may enter: a test runs as somebody else. Pytest's own folders stay where they were.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ["TMPDIR"] = tempfile.tempdir = str(leftovers.folder_of_ours(mode=0o711))
    config.add_cleanup(lambda folder=Path(tempfile.tempdir): leftovers.remove(folder))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Whoever promises everything (CI) fails where something could not be tested."""
    if skips.must_have_all() and session.exitstatus == pytest.ExitCode.OK and skips.lacking(_left_out(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = _left_out(config)
    for line in skips.lines(found):
        terminalreporter.write_line(line, yellow=True)
    if skips.must_have_all() and skips.lacking(found):
        terminalreporter.write_line("CI must have all of it: this run fails", red=True)


def _left_out(config: pytest.Config) -> Counter[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return skips.reasons(reporter.stats.get("skipped", ())) if reporter else Counter()


@pytest.fixture(scope="session", autouse=True)
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home, a state folder and a git identity of the session's own, also for child processes."""
    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("DSTACK_CATALOG_URL", "off")  # no test asks the world for prices
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        # Where an environment forbids `.pyc` files, each command that a test starts would compile every module anew:
        # three times its cost. They lie with the session's files, shared by its workers.
        base = tmp_path_factory.getbasetemp()
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        if not os.environ.get("PYTHONPYCACHEPREFIX"):
            shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
            patch.setenv("PYTHONPYCACHEPREFIX", str(shared / "pyc"))
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "Test")
            patch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONPATH"):
            patch.delenv(name, raising=False)
        yield


ENGINES = {"podman": real_engine.podman, "docker": real_engine.docker}


@pytest.fixture(scope="module", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each real engine that works here, in turn; skipped with the reason where none does."""
    if why := real_engine.why_no_engine(request.param):
        pytest.skip(why)
    folder = leftovers.folder_of_ours()
    try:
        yield ENGINES[request.param](folder)
    except real_engine.Unusable as error:
        pytest.skip(f"{request.param} does not work here: {error}")
    finally:
        real_engine.end_engines(folder)


@pytest.fixture(scope="session")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """A server of that kind, one for the session (of each worker), started when first asked for."""
    with ExitStack() as stack:
        running: dict[str, Server] = {}

        def server(kind: str) -> Server:
            if kind not in running:
                running[kind] = stack.enter_context(served(kind, tmp_path_factory.mktemp(kind)))
            return running[kind]

        yield server


@pytest.fixture(scope="session")
def aws_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    """The strict double of AWS, one for the session (of each worker); a test takes an `account` of its own."""
    with aws_double.served(tmp_path_factory.mktemp("aws")) as server:
        yield server
