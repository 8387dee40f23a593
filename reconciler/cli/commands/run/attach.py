"""`dstack attach`: forward a run's ports and log to this machine, and make `ssh RUN` work.

Whatever happens to us or to the connection, the run goes on: it ends by itself, its limits or `dstack stop`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from reconciler.app.site import Site
from reconciler.cli.commands.run.door import door_to, reach_of
from reconciler.cli.commands.run.enter import living_job
from reconciler.cli.commands.run.find import find_attempt, find_run
from reconciler.cli.commands.run.logs import LogLost, live_log, say_pending, until_late, write
from reconciler.cli.exits import Fail
from reconciler.cli.project import ports_of, site, state_of
from reconciler.cli.terminal.bounded_wait import BoundedWait
from reconciler.cli.terminal.state_age import say_age
from reconciler.cli.terminal.streams import ask, interactive, say
from reconciler.hosts.enter import mark_active, working_folder
from reconciler.hosts.follow_log import follow
from reconciler.hosts.port_forward import HERE, Hearing, forward
from reconciler.hosts.runner import HostError
from reconciler.hosts.session.base import SessionOpener
from reconciler.hosts.ssh.aliases import Alias, Aliases, AliasRefused
from reconciler.state.status import bought
from schemas.instance import Instance
from schemas.run import RUN_ENDED, Job, Run

ACTIVE_EVERY = 15.0  # seconds between two marks of activity, while a forwarded port is used
LOOK = 0.5


@dataclass(frozen=True, kw_only=True)
class AttachFlags:
    """What the command line says. `ports` as written; `ssh_config` false: no alias."""

    name: str
    ports: tuple[str, ...] = ()
    job: int = 0
    replica: int = 0
    ssh_config: bool = True
    yes: bool = False
    deadline: str = ""


def attach_run(flags: AttachFlags) -> int:
    """0 once the job has ended, 3 at the deadline, 130 where one left it."""
    where = site()
    late = until_late(flags.deadline)
    wished = [_read_port(one) for one in flags.ports]
    run, job, host = _begun(where, flags, late=late)
    reach = reach_of(where)
    door = door_to(host, where=where, reach=reach)
    attached = _Attached(where=where, run=run, job=job, host=host, door=door)
    try:
        with BoundedWait(f"{host.name} to answer"):
            attached.mark()
            attached.forward([*map(_read_port, run.spec.ports), *_own_port(run), *wished])
        if flags.ssh_config:
            attached.name_it(flags)
        if run.spec.ide:
            threading.Thread(target=attached.tell_editor, daemon=True).start()
        threading.Thread(target=attached.stay_active, daemon=True).start()
        log = live_log(ports_of(where, reach=reach), where, host=host, job=job, lasting=True)
        follow(log, write=write, sleep=time.sleep, stop=late)
    except LogLost as lost:
        raise Fail(f"{lost}; dstack attach {flags.name}") from lost
    except KeyboardInterrupt:
        say(f"\ndetached: the run goes on; `dstack attach {flags.name}` comes back, `dstack stop {flags.name}` ends it")
        return 130
    if late():
        say(f"Detached at the deadline: the run goes on; dstack attach {flags.name}")
        return 3
    return _over(where, run, job)


def _begun(where: Site, flags: AttachFlags, *, late: Callable[[], bool]) -> tuple[Run, Job, Instance]:
    """Waits until the run has a job on a host; whoever ticks brings it there."""
    state = state_of(where)
    run, waits = find_run(state, flags.name), ""
    say_age(state)
    while run.status not in RUN_ENDED and not find_attempt(state, run, replica=flags.replica, number=0):
        if late():
            raise Fail(f"run {run.spec.name} had not started at the deadline: {run.reason or run.status}", code=3)
        waits = say_pending(run, said=waits)
        time.sleep(LOOK)
        state = state_of(where)
        run = find_run(state, run.id)
    return (run, *living_job(state, run, rank=flags.job, replica=flags.replica))


def _over(where: Site, run: Run, job: Job) -> int:
    now = find_run(state_of(where), run.id)
    if now.status in RUN_ENDED:
        say(f"run {run.spec.name} is {now.status}{f': {now.reason}' if now.reason else ''}")
    else:
        say(f"job {job.id} has ended; `dstack apply` collects its result")
    return 0


def _read_port(text: str) -> tuple[int, int]:
    """`8000`, `9000:8000` or `*:8000` -> (wanted here, there)."""
    here, _, there = text.rpartition(":")
    words = (there if here in ("", "*") else here, there)
    if not all(word.isdecimal() and 0 < int(word) < 65536 for word in words):
        raise Fail(f"-p {text}: not LOCAL:REMOTE, such as 8080:80")
    return int(words[0]), int(words[1])


def _own_port(run: Run) -> list[tuple[int, int]]:
    return [] if run.spec.port is None else [(run.spec.port, run.spec.port)]


@dataclass(kw_only=True)
class _Attached:
    """One job that somebody is attached to. `moved`: a forwarded port was used since activity was last marked.

    `alias` is what `ssh` enters it by, "" where there is none; `missing` says what must be done before it is known.
    """

    where: Site
    run: Run
    job: Job
    host: Instance
    door: SessionOpener
    moved: bool = False
    alias: str = ""
    missing: str = ""

    def mark(self) -> None:
        try:
            mark_active(self.door, self.job.id)
        except HostError as error:
            raise Fail(f"{self.host.name} does not answer: {error}") from error

    def forward(self, wished: list[tuple[int, int]]) -> None:
        """Each remote port once for each local one that was asked for."""
        hearing = Hearing(told=say, moved=self._heard)
        for wanted, remote in dict.fromkeys(wished):
            if self.host.host is None and not bought(self.host) and wanted == remote:
                say(f"port {remote} is on this machine: {HERE}:{remote}")
                continue
            local = forward(self.door, remote, wanted=wanted, hearing=hearing)
            taken = f"{HERE}:{wanted} is taken here: " if local != wanted else ""
            say(f"{taken}{HERE}:{local} leads to port {remote} of {self.host.name}")

    def _heard(self, size: int) -> None:
        self.moved = self.moved or size > 0

    def stay_active(self) -> None:
        """For as long as we live. A mark that does not arrive is followed by the next."""
        while True:
            time.sleep(ACTIVE_EVERY)
            if self.moved:
                self.moved = False
                try:
                    mark_active(self.door, self.job.id)
                except HostError:
                    self.moved = True

    def name_it(self, flags: AttachFlags) -> None:
        """Make `ssh RUN` work, and say how to type it."""
        aliases = Aliases(Path.home())
        alias = Alias(
            name=self.run.spec.name,
            project=self.where.project,
            run=self.run.id,
            folder=self.where.root,
            rank=flags.job,
            replica=flags.replica,
        )
        try:
            aliases.write(alias)
        except AliasRefused as error:
            say(f"note: {error}")
            return
        self.alias = alias.typed
        if not aliases.included() and (flags.yes or _asked(aliases, alias)):
            aliases.include()
            say(f"{aliases.user_config} includes {aliases.config} now")
        if aliases.included():
            say(f"`ssh {alias.typed}` enters it")
        else:
            self.missing = f"`-y` lets {aliases.user_config} include {aliases.config}"
            say(f"`ssh -F {aliases.config} {alias.typed}` enters it; `-y` lets {aliases.user_config} include that file")

    def tell_editor(self) -> None:
        """Once its folder is there."""
        while True:
            try:
                folder = working_folder(self.door, self.job.id)
            except HostError:
                time.sleep(LOOK)
                continue
            say(editor_words(self.run.spec.ide, folder, alias=self.alias, missing=self.missing))
            return


def _asked(aliases: Aliases, alias: Alias) -> bool:
    return interactive() and ask(
        f"So that `ssh {alias.typed}` works, {aliases.user_config} must include {aliases.config}: "
        "add that line at its top?"
    )


def editor_words(ide: str, folder: str, *, alias: str, missing: str) -> str:
    """How its editor opens the run's folder. Each of these editors knows VS Code's remote URLs.

    They enter as `ssh ALIAS` does: without an alias not at all, and not before the user's ssh_config knows it.
    """
    if not alias:
        return f"{ide} cannot open {folder}: it enters as `ssh` does, and this run has no alias"
    url = f"{ide}://vscode-remote/ssh-remote+{alias}{quote(folder, errors='surrogateescape')}"
    return f"{ide} does not know {alias} yet: {missing}; then it opens {url}" if missing else f"open {url}"
