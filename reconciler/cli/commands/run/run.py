"""`dstack run`: show offers, ask, request the run, then follow its log."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from reconciler.app.site import Site
from reconciler.cli.commands.plan.revision import identified
from reconciler.cli.commands.plan.scoped_tick import Wished
from reconciler.cli.commands.run.confirm import RunConfirm
from reconciler.cli.commands.run.files import pack
from reconciler.cli.commands.run.follow import start_run
from reconciler.cli.exits import Fail
from reconciler.cli.project import ports_of, project_root, site_of, state_of
from reconciler.cli.terminal.streams import say
from reconciler.config.load import Documents
from reconciler.config.load_run import RunFlags, read_run_file, sealed_env
from reconciler.state.requests import add_run, carry
from reconciler.system.process import nonce, now, who
from schemas.run import Container, Run, RunSpec
from schemas.state import State

DEFAULT_FILE = ".dstack.yml"
ADJECTIVES = ("brave", "calm", "eager", "fair", "gentle", "happy", "keen", "lucky", "mighty", "neat", "quick", "witty")
ANIMALS = ("ant", "bear", "crane", "deer", "eel", "fox", "goose", "hare", "ibis", "lynx", "newt", "otter", "yak")


@dataclass(frozen=True, kw_only=True)
class RunAsk:
    """The command line, as typed. `flags` are the fields of `RunFlags`, but `env`."""

    working_dir: Path
    file: Path | None
    detach: bool
    yes: bool
    yes_above: str
    max_offers: int
    deadline: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    flags: Mapping[str, Any]
    exit_code_from: int | None = None
    """The node whose exit code the command ends with; `None`: 0 and 1 tell whether the run was done."""


def run_run(asked: RunAsk) -> int:
    """0 where the run was done, or handed over with `-d`; 1 where it failed; 130 where one left it."""
    if asked.detach and asked.exit_code_from is not None:
        raise Fail("--exit-code-from waits for the end of the run: leave out -d")
    if not asked.working_dir.is_dir():
        raise Fail(f"{asked.working_dir}: no such folder; `dstack run .` runs in this one")
    root = project_root(asked.working_dir)
    documents = identified(root)
    site = site_of(documents)
    spec = _spec(asked, documents=documents, site=site)
    _refuse_lacking(spec, ports_of(site).lacking(spec, documents.desired))
    run = Run(id=f"{nonce()}r1", spec=spec, origin="run", user=who(), submitted_at=now())
    run = replace(
        run,
        bundle=pack(site, spec, desired=documents.desired, yes=asked.yes),
        wait_until=_wait_until(spec),
    )
    wished = _wished(asked, documents=documents, site=site, run=run)
    code = start_run(site, wished, run=run, detach=asked.detach, deadline=asked.deadline)
    return (
        code if asked.exit_code_from is None or code not in (0, 1) else _of_job(site, run, asked.exit_code_from, code)
    )


def _of_job(site: Site, run: Run, rank: int, code: int) -> int:
    """The exit code of that node in the run's last attempt; `code` where it has none, as a lost one."""
    attempts = [one for one in state_of(site).attempts if one.run == run.id]
    jobs = [job for one in sorted(attempts, key=lambda one: one.number) for job in one.jobs if job.rank == rank]
    if attempts and not jobs:
        say(f"--exit-code-from {rank}: run {run.spec.name} has no node {rank}; its nodes are counted from 0")
    return code if not jobs or jobs[-1].exit_code is None else jobs[-1].exit_code


def _wished(asked: RunAsk, *, documents: Documents, site: Site, run: Run) -> Wished:
    desired = documents.desired
    confirm = RunConfirm(
        run=run, desired=desired, site=site, yes=asked.yes, yes_above=asked.yes_above, most=asked.max_offers
    )

    def wish(state: State) -> State:
        carried = carry(state, pool=run.spec.pool, desired=desired, by=who(), now=now())
        return add_run(carried, replace(run, confirmed_price=confirm.price, confirmed_unpriced=confirm.unpriced))

    return Wished(wish=wish, scope=(run.id,), carried=desired, confirm=confirm, prompted=not asked.yes)


def _spec(asked: RunAsk, *, documents: Documents, site: Site) -> RunSpec:
    path = _file(asked)
    flags = RunFlags(**asked.flags, env=asked.env)
    spec, warnings = read_run_file(path, documents=documents, desired=documents.desired, flags=flags, args=asked.args)
    for warning in warnings:
        say(f"warning: {warning}")
    _refuse_unused(asked.args, spec)
    if spec.unsupported:
        raise Fail(f"{path}: {'; '.join(spec.unsupported)}")
    relative = asked.working_dir.resolve().relative_to(site.root.resolve()).as_posix()
    return replace(
        spec,
        name=spec.name or _new_name(),
        working_dir=spec.working_dir or ("" if relative == "." else relative),
        sealed=_sealed(sealed_env(flags), site=site),
        container=_sealed_login(spec.container, site=site),
    )


def _refuse_lacking(spec: RunSpec, why: str) -> None:
    """Nobody but whoever types this could give what is lacking: waiting would bring nothing."""
    if why:
        raise Fail(f"run {spec.name} {why}. Set it, or pass -e NAME=VALUE. Nothing was started")


def _file(asked: RunAsk) -> Path:
    """`-f` as seen from here, else from the run's folder."""
    if asked.file is None:
        path = asked.working_dir / DEFAULT_FILE
        if not path.is_file():
            raise Fail(f"{path}: no such file; name the run configuration with -f FILE")
        return path
    for path in (asked.file, asked.working_dir / asked.file):
        if path.is_file():
            return path
    raise Fail(f"-f {asked.file}: no such file")


def _refuse_unused(args: tuple[str, ...], spec: RunSpec) -> None:
    """Arguments that the commands never use are most likely a mistyped option."""
    uses = any("run.args" in command for command in (*spec.commands, *spec.setup))
    if not args or uses:
        return
    wrong = next((arg for arg in args if arg.startswith("-")), args[0])
    from reconciler.cli.suggest import close_option

    hint = close_option(wrong)
    raise Fail(
        f"{wrong}: the run's commands do not use ${{{{ run.args }}}}, so nobody would read it; "
        + (f"did you mean {hint}?" if hint else "see `dstack run --help`")
    )


def _sealed_login(container: Container | None, *, site: Site) -> Container | None:
    """A registry's password that stands in the file itself never enters the state."""
    if container is None or not container.password or "${{" in container.password:
        return container
    ((_, password),) = _sealed({"registry_auth": container.password}, site=site)
    return replace(container, password=password, sealed=True)


def _sealed(values: Mapping[str, str], *, site: Site) -> tuple[tuple[str, str], ...]:
    """Encrypted with the project's key before anything is stored."""
    if not values:
        return ()
    from reconciler.secrets.project_key import project_key

    key = project_key(site.keys, environ=os.environ)
    return tuple((name, key.seal(os.fsencode(value))) for name, value in sorted(values.items()))


def _wait_until(spec: RunSpec) -> int | None:
    """With `retry`, until its time is over; otherwise it waits: what could never fit was refused before."""
    if spec.retry.no_capacity and spec.retry.duration is not None:
        return now() + spec.retry.duration
    return None


def _new_name() -> str:
    """For people alone: ids tell runs apart."""
    return f"{random.choice(ADJECTIVES)}-{random.choice(ANIMALS)}-{random.randint(1, 99)}"  # noqa: S311
