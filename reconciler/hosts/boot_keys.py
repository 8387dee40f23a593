"""Derive SSH keys from the project's key: the login key, and the first host key of each launch.

Nothing of it is stored. The texts are the same each time, so that a launch that is rendered again is the same launch.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct

from backends.boot.spec import Boot
from reconciler.secrets.project_key import ProjectKey
from schemas.base import Value

KIND = b"ssh-ed25519"
_MAGIC = b"openssh-key-v1\0"


class KeyPair(Value, frozen=True, kw_only=True):
    """`private` is OpenSSH's text without a passphrase, `public` is `ssh-ed25519 AAAA…`."""

    private: str
    public: str

    def __repr__(self) -> str:
        return f"KeyPair({self.public!r})"


def boot_of(key: ProjectKey, launch: str) -> Boot:
    """What the machines of a launch are born with."""
    host = host_key_of(key, launch)
    return Boot(
        host_key_private=host.private, host_key_public=host.public, authorized_keys=(f"{login_of(key).public} dstack",)
    )


def login_of(key: ProjectKey) -> KeyPair:
    """Who logs in on every machine of the project."""
    return _pair(key.derive("login"))


def host_key_of(key: ProjectKey, launch: str) -> KeyPair:
    """What a machine of that launch shows until its first contact."""
    return _pair(key.derive(f"host-key:{launch}"))


def endorsement(key: ProjectKey, *, launch: str, instance: str, host_key: str) -> str:
    """Says that a holder of the project's key has seen that machine make this host key. It is no secret."""
    said = f"{launch}\n{instance}\n{' '.join(host_key.split()[:2])}".encode()
    return hmac.new(key.derive(f"endorse:{launch}"), said, hashlib.sha256).hexdigest()


def _pair(seed: bytes) -> KeyPair:
    """The library's own text holds a random number; this one's is derived too."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = (
        Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(forms.Encoding.Raw, forms.PublicFormat.Raw)
    )
    blob = _text(KIND) + _text(public)
    check = hashlib.sha256(b"check" + public).digest()[:4]
    inner = check + check + blob + _text(seed + public) + _text(b"dstack")
    inner += bytes(range(1, 1 + -len(inner) % 8))
    none = _text(b"none")
    whole = _MAGIC + none + none + _text(b"") + struct.pack(">I", 1) + _text(blob) + _text(inner)
    coded = base64.b64encode(whole).decode()
    lines = [coded[start : start + 70] for start in range(0, len(coded), 70)]
    private = "\n".join(("-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""))
    return KeyPair(private=private, public=f"{KIND.decode()} {base64.b64encode(blob).decode()}")


def _text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
