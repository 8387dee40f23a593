"""Decide which host names, logins and paths of keys may be given to ssh.

`~/.ssh/config` of whoever connects may hand them to a shell (`Match exec`, `ProxyCommand`). So everything is refused
that ssh refuses, and with it what a shell would read as anything but a word.
"""

from __future__ import annotations

import re

_HOST = re.compile(r"[\w:][\w.:/+-]{0,252}(?:%\w[\w.-]{0,31})?", re.ASCII)
_INTERNATIONAL = re.compile(r"\w(?:[\w.-]*\w)?\.?")
_LOGIN = re.compile(r"\w[\w.@+\\:/=%#-]{0,254}\$?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def host_name_fault(text: str) -> str:
    """Why `text` is no host name, address or alias of `~/.ssh/config`; "" where it is one."""
    if _HOST.fullmatch(text) or (not text.isascii() and len(text) <= 253 and _INTERNATIONAL.fullmatch(text)):
        return ""
    return f"{text!a} is not a host name: letters, digits, `.`, `-`, `_` and `:` only, as ssh takes them"


def login_fault(text: str) -> str:
    """Why `text` is no login name; "" where it is one. `ann`, `CORP\\ann`, `ann@corp.example` and `svc$` are."""
    if _LOGIN.fullmatch(text) and not text.endswith("\\"):
        return ""
    return f"{text!a} is not a login name: letters, digits and `.@_+-` only, not `-` first, as ssh takes them"


def key_path_fault(text: str) -> str:
    """Why `text` is no path of a key; "" where it is one."""
    if text and not _CONTROL.search(text) and not text.startswith("-"):
        return ""
    return f"{text!a} is not the path of a key: it is empty, begins with `-` or holds a control character"
