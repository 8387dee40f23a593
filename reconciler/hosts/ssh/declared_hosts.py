"""Reach declared SSH servers for `backends.ssh`: pinned connections, and errors in a backend's words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import BackendError, TryLater
from reconciler.hosts.runner import Unreachable, Untrusted
from reconciler.hosts.ssh.cloud_hosts import Accessing, CloudReach
from reconciler.state.status import bought
from schemas.access import Access
from schemas.host import Host
from schemas.instance import Instance

if TYPE_CHECKING:
    from backends.base import Said
    from reconciler.hosts.ssh.connections import Line, Lines
    from reconciler.hosts.transport.program import ProgramTransport
    from reconciler.hosts.transport.ssh import SshTransport
    from reconciler.secrets.project_key import ProjectKey


def reach_from(
    root: Path,
    *,
    who: str,
    config: Path | None = None,
    family: int = 0,
    environ: Mapping[str, str] | None = None,
) -> SshReach:
    """With the keys and `~/.ssh/config` (or `config`) of whoever runs this; `root` is the project's folder.

    `family` is that of the addresses to dial (`socket.AF_INET`), 0 for what the configuration says.
    Machines in clouds are reached with the project's key, which `environ` may hold: it is never made for that.
    """

    def lines() -> Lines:
        from reconciler.hosts.ssh.config import Here
        from reconciler.hosts.ssh.connections import Lines

        return Lines(Here(root=root, home=Path.home(), config=config, family=family))

    def key() -> ProjectKey:
        from reconciler.secrets.project_key import project_key

        return project_key(root / ".dstack/keys", environ=environ or {}, mint=False)

    return SshReach(lines, who=who, key=key)


class SshReach:
    """`lines` makes them when first needed: a plan does not pay for them. Thread-safe.

    `cloud` is the way to machines that we bought, with the project's `key`; `access` names a backend's own programs.
    """

    def __init__(
        self,
        lines: Callable[[], Lines],
        *,
        who: str,
        key: Callable[[], ProjectKey] | None = None,
        access: Accessing | None = None,
    ) -> None:
        self._make = lines
        self._key = key or _no_key
        self.cloud = CloudReach(lambda: self.lines, key=self._key, access=access)
        self._lock = threading.Lock()
        self._lines: Lines | None = None
        self.who = who

    @property
    def lines(self) -> Lines:
        with self._lock:
            if self._lines is None:
                self._lines = self._make()
            return self._lines

    def host_of(self, instance: Instance) -> tuple[Callable[[], Line], str]:
        """How to get the line to an instance's host, and its folder there, below the login's home."""
        host = instance.host
        if host is not None:
            return lambda: self.lines.to(host), f"{host.folder}/host"
        if not (instance.address or instance.external_id):
            raise Unreachable(f"{instance.name}: its place tells no address yet")
        from backends.boot.spec import FOLDER

        return lambda: self.cloud.line(instance), FOLDER

    def program(self, instance: Instance) -> Access | None:
        """The command that starts programs on an instance without an SSH server; `None` where it has one."""
        found = self.cloud.program(instance) if instance.host is None else None
        return found if found is not None and found.speaks == "sh" else None

    def by_program(self, instance: Instance, environ: Mapping[str, str]) -> ProgramTransport | None:
        """The transport over such a command, in our folder there; `None` where there is an SSH server."""
        access = self.program(instance)
        if access is None:
            return None
        from backends.boot.spec import FOLDER
        from reconciler.hosts.transport.program import ProgramTransport

        return ProgramTransport(lambda: access, folder=FOLDER, environ=environ)

    def shown(self, instance: Instance) -> str:
        """The pinned host key that a bought machine showed; "" for any other, or before that."""
        return self.cloud.pin_of(instance) if bought(instance) else ""

    def seal(self, instance: str, generation: int) -> str:
        """What proves later that this project told that instance of this generation; "" without the project's key."""
        from reconciler.state.fences import seal_of

        secret = self._fence_key
        return seal_of(secret, instance=instance, generation=generation) if secret else ""

    @cached_property
    def _fence_key(self) -> bytes:
        from reconciler.secrets.project_key import KeyRefused

        try:
            return self._key().derive("fence")
        except KeyRefused:
            return b""

    @cached_property
    def rules(self) -> str:
        return files("reconciler.hosts.programs").joinpath("rules.sh").read_text("utf-8")

    def transport(self, host: Host, *, folder: str = "") -> SshTransport:
        """Programs run in `folder`, below the login's home."""
        from reconciler.hosts.transport.ssh import SshTransport

        return SshTransport(lambda: self.lines.to(host), folder=folder)

    def ask(
        self, host: Host, program: str, *, args: Sequence[str] = (), stdin: bytes = b"", timeout: float = 45.0
    ) -> Said:
        from backends.base import Said

        try:
            heard = self.transport(host).hear(program, args=args, stdin=stdin, timeout=timeout)
            line = self.lines.to(host)
        except Untrusted as error:
            raise BackendError(f"quarantined: {error}") from error
        except Unreachable as error:
            raise TryLater(str(error)) from error
        answer = heard.answer
        met = self.lines.unsupported(host)
        return Said(answer.code, answer.out, answer.err, heard.noise, line.host_key, line.steps, met)


def _no_key() -> ProjectKey:
    from reconciler.secrets.project_key import KeyRefused

    raise KeyRefused("no project's key is at hand")
