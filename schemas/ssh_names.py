"""Decide which host names, logins and paths of keys may be given to ssh.

`~/.ssh/config` of whoever connects may hand them to a shell (`Match exec`, `ProxyCommand`). So everything is refused
that ssh refuses, and with it what a shell would read as anything but a word.
"""

from __future__ import annotations

import re

_ADDRESS = r"[A-Za-z0-9_:][A-Za-z0-9_.:/+-]{0,252}(?:%[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?"
_INTERNATIONAL = r"\w(?:[\w.-]{0,250}\w)?\.?"
HOST_NAME = rf"(?:{_ADDRESS}|{_INTERNATIONAL})"
"""A host name, an address, or an alias of an ssh_config; a pattern for the whole text, as the two below."""
LOGIN = r"\w[\w.@+\\:/=%#-]{0,254}(?<!\\)\$?"
"""A login name: `ann`, `CORP\\ann`, `ann@corp.example`, `svc$`."""
KEY_PATH = "(?!-)[^\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]+"
"""A path of a key: any, but for control characters and what looks like an option."""


def host_name_fault(text: str) -> str:
    """Why `text` is no host name, address or alias; "" where it is one."""
    if re.fullmatch(HOST_NAME, text):
        return ""
    return f"{text!a} is not a host name: letters, digits, `.`, `-`, `_` and `:` only, as ssh takes them"


def login_fault(text: str) -> str:
    """Why `text` is no login name; "" where it is one."""
    if re.fullmatch(LOGIN, text):
        return ""
    return f"{text!a} is not a login name: letters, digits and `.@_+-` only, not `-` first, as ssh takes them"


def key_path_fault(text: str) -> str:
    """Why `text` is no path of a key; "" where it is one."""
    if re.fullmatch(KEY_PATH, text):
        return ""
    return f"{text!a} is not the path of a key: it is empty, begins with `-` or holds a control character"
