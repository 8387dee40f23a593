"""The project's key: encrypts values of `-e K=V` and derives the host keys of launches.

The key never leaves its file (or, in CI, the environment); nothing here puts it into a message.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from reconciler.secrets.errors import SecretLacking
from reconciler.system.private_folder import make_private

VARIABLE = "DSTACK_PROJECT_KEY"
PREFIX = "sealed:v1:"
LENGTH = 32


class KeyRefused(SecretLacking):
    """No usable key here, or a text that it did not seal. The message has the next command, never a value."""


class ProjectKey:
    """32 secret bytes, and all that is made of them."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "ProjectKey(…)"

    def seal(self, value: bytes, *, about: str = "") -> str:
        """ASCII text `sealed:v1:…`, another each time. `about` must be said again to open it."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        salt = os.urandom(12)
        box = AESGCM(self._derived(b"seal")).encrypt(salt, value, about.encode())
        return PREFIX + base64.urlsafe_b64encode(salt + box).decode()

    def unseal(self, text: str, *, about: str = "") -> bytes:
        """The value; `KeyRefused` where another key, another `about` or a changed text is at hand."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not text.startswith(PREFIX):
            raise KeyRefused("not a sealed value")
        try:
            raw = base64.b64decode(text[len(PREFIX) :], altchars=b"-_", validate=True)
            return AESGCM(self._derived(b"seal")).decrypt(raw[:12], raw[12:], about.encode())
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise KeyRefused("sealed with another project key, or changed since; give the value again") from error

    def derive(self, purpose: str, *, length: int = LENGTH) -> bytes:
        """The same secret bytes for the same purpose (a launch id) for ever, unlike those of any other."""
        return self._derived(b"derive:" + purpose.encode(), length=length)

    def _derived(self, info: bytes, *, length: int = LENGTH) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(algorithm=SHA256(), length=length, salt=None, info=b"dstack-pools:" + info).derive(self._secret)


def project_key(folder: Path, *, environ: Mapping[str, str], mint: bool = True) -> ProjectKey:
    """The key of `folder` (`.dstack/keys`), minted once where there is none; in CI, the environment's.

    Callers that race to mint agree on one. Without `mint`, or in CI, a missing key is refused.
    """
    if environ.get(VARIABLE):
        return ProjectKey(_decoded(environ[VARIABLE], source=f"${VARIABLE}"))
    path = folder / "project.key"
    found = _read(path)
    if found is not None:
        return ProjectKey(found)
    if not mint:
        raise KeyRefused(f"{path}: not there; copy it from who made it, or set {VARIABLE}")
    if environ.get("CI"):
        raise KeyRefused(f"{VARIABLE} is not set, and CI never mints a key: store that of .dstack/keys there")
    return ProjectKey(_mint(path))


def exported(folder: Path) -> str:
    """The text for `DSTACK_PROJECT_KEY`: for the eyes of who stores it, never for a log."""
    found = _read(folder / "project.key")
    if found is None:
        raise KeyRefused(f"{folder / 'project.key'}: not there")
    return base64.b64encode(found).decode()


def _read(path: Path) -> bytes | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyRefused(f"{path}: cannot be read: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
            raise KeyRefused(f"{path}: not a file of yours: `ls -l {path}`")
        if info.st_mode & 0o077:
            raise KeyRefused(f"{path}: others may have read it; `chmod 600 {path}` if none did, else make a new one")
        return _decoded(file.read(1024).decode("ascii", "replace"), source=str(path))


def _decoded(text: str, *, source: str) -> bytes:
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != LENGTH:
        # `from None`: the cause would carry the text.
        raise KeyRefused(f"{source}: not a project key ({LENGTH} bytes in base64)") from None
    return secret


def _mint(path: Path) -> bytes:
    """Written whole beside it and linked into place: exclusive, and never seen half-written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        make_private(path.parent)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(os.urandom(LENGTH)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _link(temporary, path)
    except OSError as error:
        raise KeyRefused(f"{path}: cannot be made: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    found = _read(path)
    if found is None:
        raise KeyRefused(f"{path}: vanished while it was made; try again")
    return found


def _link(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return  # another process minted first: its key is the project's
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
