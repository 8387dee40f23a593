"""Stream a file or folder out of a running job (one line, `dir` or `file`, then a tar), or into one (a tar)."""

from __future__ import annotations

import posixpath
import threading

from reconciler.hosts.enter import checked
from reconciler.hosts.session.base import Session, SessionOpener

# $1 a path, from where it runs. A link is what it leads to; links further down stay links.
_PACK = """\
if [ -d "$1" ]; then cd -- "$1" && echo dir && exec tar -cf - .
elif [ -f "$1" ]; then
    case $1 in */*) cd -- "${1%/*}/" || exit 1 ;; esac
    echo file && exec tar -chf - "./${1##*/}"
else echo "no file or folder $1 there" >&2; exit 1
fi"""
# $1 the job, $2 the path, $3 the folder of its files where it runs, $4 `box` or "". What a container has is asked of
# it: a link leads elsewhere on its host. Of one that has ended, its files are left.
_FROM_HOST = (
    """\
cd "jobs/$1" 2>/dev/null && [ -d work ] || { echo "this job has not begun yet, or its files are gone" >&2; exit 1; }
if [ "$4" = box ] && [ ! -f end ]; then
    pack=$(cat <<'EOF'
"""
    + _PACK
    + """
EOF
)
    exec sh ./enter.sh sh -c "$pack" sh "$2"
fi
cd "work/$3" || exit 1
set -- "$2"
"""
    + _PACK
)


def pack_files(door: SessionOpener, job: str, path: str, *, working_dir: str, boxed: bool) -> Session:
    """`path` is relative to the working folder, or absolute where the job runs; "" is the folder itself."""
    below = "" if posixpath.isabs(working_dir) else working_dir
    session = door.run(_FROM_HOST, args=(checked(job), path or ".", below, "box" if boxed else ""))
    session.end_input()
    return session


# $1 where it goes, from where it runs; $2 `into` where it is a folder to make, else $3 is the name here; stdin: a tar
# of what is in the folder, or of one member, `file`. A file is replaced whole.
_UNPACK = """\
if [ "$2" = into ]; then mkdir -p -- "$1" && cd -- "$1" && exec tar -xf -; fi
place=$1
if [ -d "$1" ]; then place=$1/$3
else case $1 in */) mkdir -p -- "$1" && place=$1$3 ;; esac; fi
[ ! -d "$place" ] || { echo "$place is a folder there" >&2; exit 1; }
part=$place.dstack-$$
mkdir -- "$part" && tar -xf - -C "$part" && mv -f -- "$part/file" "$place"
code=$?
rm -rf -- "$part"
exit $code"""
_TO_HOST = (
    """\
cd "jobs/$1" 2>/dev/null && [ -d work ] && [ ! -f end ] || { echo "this job does not run" >&2; exit 1; }
if [ "$4" = box ]; then
    unpack=$(cat <<'EOF'
"""
    + _UNPACK
    + """
EOF
)
    exec sh ./enter.sh sh -c "$unpack" sh "$2" "$5" "$6"
fi
cd "work/$3" || exit 1
set -- "$2" "$5" "$6"
"""
    + _UNPACK
)


def unpack_files(
    door: SessionOpener, job: str, path: str, *, name: str, folder: bool, working_dir: str, boxed: bool
) -> Session:
    """Take a tar on the session's input to `path`, where the job runs.

    With `folder` its members are what the folder there gets; else it has one member, `file`, which becomes `path`, or
    `name` in `path` where that is a folder.
    """
    below = "" if posixpath.isabs(working_dir) else working_dir
    how = "into" if folder else "file"
    return door.run(_TO_HOST, args=(checked(job), path or ".", below, "box" if boxed else "", how, name))


class FilesStream:
    """Read the output of `pack_files`: its first line, then the tar as a file. Its stderr is kept aside."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._early = b""
        self._errors = b""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def line(self) -> str:
        """Its first."""
        while b"\n" not in self._early and (data := self._session.read(4096)):
            self._early += data
        first, _, self._early = self._early.partition(b"\n")
        return first.decode("utf-8", "replace")

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, but at the end."""
        while len(self._early) < size and (data := self._session.read(256 * 1024)):
            self._early += data
        data, self._early = self._early[:size], self._early[size:]
        return data

    def errors(self) -> str:
        self._listener.join(5)
        lines = self._errors.decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def _listen(self) -> None:
        while data := self._session.read_errors(4096):
            self._errors = (self._errors + data)[-4000:]
