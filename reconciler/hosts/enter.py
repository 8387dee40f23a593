"""Programs that enter a job on its host, find its files, and report that a person is active."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reconciler.hosts.runner import HostError
from reconciler.hosts.session.base import Screen, Session, SessionOpener

_JOB = re.compile(r"[a-z0-9][a-z0-9-]{0,100}\Z", re.ASCII)
_ENTER = 'job=$1; shift; exec sh "jobs/$job/enter.sh" "$@"'
# A command line as sshd would give it to a login shell.
_LINE = 'command -v bash > /dev/null 2>&1 && exec bash -c "$0"; exec sh -c "$0"'
_SFTP = """\
for server in "$(command -v sftp-server)" /usr/lib/openssh/sftp-server /usr/lib/ssh/sftp-server \
    /usr/libexec/openssh/sftp-server /usr/libexec/sftp-server; do
    [ ! -x "$server" ] || exec "$server"
done
echo "no sftp-server where this job runs: \\`dstack cp\\` needs tar alone, \\`scp -O\\` a scp there" >&2
exit 1"""
_ACTIVE = 'printf . >> "jobs/$1/active"'
_WHERE = """\
cd "jobs/$1" && [ -f order ] && . ./order || exit 1
if [ -n "$image" ]; then printf %s "$folder"; else cd "work/$working_dir" && pwd -P | tr -d '\\n'; fi"""
_PATIENCE = 64 * 1024


def enter(door: SessionOpener, job: str, *, line: str | None = None, screen: Screen | None = None) -> Session:
    """In the job's container or environment, in its working folder: a command line, or a shell."""
    words = ("sh", "-c", _LINE, line) if line is not None else ()
    return run_inside(door, job, words, screen=screen)


def enter_sftp(door: SessionOpener, job: str) -> Session:
    """The SFTP server of where the job runs."""
    return run_inside(door, job, ("sh", "-c", _SFTP))


def run_inside(door: SessionOpener, job: str, words: Sequence[str], *, screen: Screen | None = None) -> Session:
    return door.run(_ENTER, args=(checked(job), *words), screen=screen)


def mark_active(door: SessionOpener, job: str) -> None:
    """Somebody is: what `inactivity_duration` counts begins anew."""
    _answer(door.run(_ACTIVE, args=(checked(job),)))


def working_folder(door: SessionOpener, job: str) -> str:
    """Absolute, as the job sees it. Raises `HostError` where it does not run."""
    code, said = _answer(door.run(_WHERE, args=(checked(job),)))
    folder = said.decode("utf-8", "surrogateescape")
    if code or not folder.startswith("/"):
        raise HostError("its working folder is not there (yet)")
    return folder


def checked(job: str) -> str:
    if not _JOB.match(job):
        raise HostError(f"not a job id: {job!r}")
    return job


def _answer(session: Session) -> tuple[int, bytes]:
    """Of a program that says little."""
    said = b""
    while (data := session.read(4096)) and len(said) < _PATIENCE:
        said += data
    code = session.wait()
    session.close()
    return code, said
