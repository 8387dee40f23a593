"""What this machine has that a new project could use: AWS profiles, hosts of `~/.ssh/config`, clusters. Reads files."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from schemas.backend_types import TYPES
from schemas.base import NAME

MOST = 8
"""Hosts and profiles that are shown of each kind."""
_HOST = re.compile(r"\s*Host\s+(.+)", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Found(NamedTuple):
    """Something to choose: `backend` is an entry of that list, or `command` what is to be typed for it."""

    what: str
    where: str
    backend: str = ""
    command: str = ""


def found_here(home: Path, environ: Mapping[str, str]) -> list[Found]:
    """In the order in which they are shown. A file that cannot be read holds nothing."""
    return [*_aws(home, environ), *_clusters(home, environ), *_hosts(home)]


def _aws(home: Path, environ: Mapping[str, str]) -> list[Found]:
    config = Path(environ.get("AWS_CONFIG_FILE") or home / ".aws" / "config")
    keys = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials")
    regions: dict[str, str] = {}
    for file in (config, keys):
        for section, values in _ini(file).items():
            name = section.removeprefix("profile ").strip()
            if _PLAIN.fullmatch(name) and not section.startswith(("sso-session", "services")):
                regions[name] = regions.get(name) or values.get("region", "")
    return [
        Found(f"AWS, profile {name}", str(config if config.is_file() else keys), backend=_aws_entry(name, region))
        for name, region in list(regions.items())[:MOST]
    ]


def _aws_entry(profile: str, region: str) -> str:
    parts = ["type: aws"]
    if re.fullmatch(r"[a-z0-9-]{5,30}", region):
        parts.append(f"regions: [{region}]")
    if profile != "default":
        parts.append(f"creds: {{profile: {profile}}}")
    return "{" + ", ".join(parts) + "}"


def _ini(file: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error):
        return {}
    return {section: dict(parser.items(section)) for section in parser.sections()}


def _hosts(home: Path) -> list[Found]:
    """Names of single hosts: patterns are none."""
    file = home / ".ssh" / "config"
    names: list[str] = []
    for line in _text(file).splitlines():
        if found := _HOST.match(line):
            names += [word for word in found[1].split() if _PLAIN.fullmatch(word) and word not in names]
    shown = [name for name in names if name not in ("github.com", "gitlab.com", "bitbucket.org")]
    return [Found(f"host {name}", str(file), command=f"dstack pool add-ssh {name}") for name in shown[:MOST]]


def _clusters(home: Path, environ: Mapping[str, str]) -> list[Found]:
    """Contexts of the kubeconfig, where this version can use them."""
    import yaml

    if not TYPES["kubernetes"].module:
        return []
    file = Path((environ.get("KUBECONFIG") or "").split(":")[0] or home / ".kube" / "config")
    try:
        value = yaml.safe_load(_text(file))
    except yaml.YAMLError:
        return []
    contexts = value.get("contexts") if isinstance(value, dict) else None
    entries = contexts if isinstance(contexts, list) else []
    names = [str(one.get("name")) for one in entries if isinstance(one, dict)]
    return [
        Found(f"cluster {name}", str(file), backend=f"{{type: kubernetes, contexts: [{name}]}}")
        for name in names[:MOST]
        if re.fullmatch(NAME, name) or _PLAIN.fullmatch(name)
    ]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
