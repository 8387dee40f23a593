"""Resolve a backend's credentials that refer to declared secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from reconciler.config.problems import Problem
from reconciler.config.read import FormEntry
from schemas.desired import BackendConfig, Secret

_SECRET = re.compile(r"\$\{\{ *secrets\.([A-Za-z_][A-Za-z0-9_]*) *\}\}")


def with_secrets(config: BackendConfig, secrets: Sequence[Secret]) -> BackendConfig:
    """`${{ secrets.NAME }}` of a secret `{env: VARIABLE}` is `${{ env.VARIABLE }}`; other secrets are for runs."""
    creds = config.options.get("creds")
    if not creds:
        return config
    known = {one.name: one.reference for one in secrets if one.source == "env"}

    def told(text: str) -> str:
        found = _SECRET.fullmatch(text)
        return f"${{{{ env.{known[found[1]]} }}}}" if found and found[1] in known else text

    return replace(config, options={**config.options, "creds": {key: told(text) for key, text in creds.items()}})


def creds_faults(entry: FormEntry, secrets: Sequence[Secret]) -> Iterator[Problem]:
    """A backend's credentials are needed by whoever asks its place, before any secret of another kind can be had."""
    sources = {one.name: one.source for one in secrets}
    for key, text in (getattr(entry.form, "creds", None) or {}).items():
        found = _SECRET.fullmatch(text.strip())
        if found and sources.get(found[1], "env") != "env":
            yield entry.problem(
                f"the secret `{found[1]}` is a `{sources[found[1]]}`: a backend's credentials come from the "
                f"environment, by a secret `{{env: NAME}}` or `${{{{ env.NAME }}}}`, or from a `profile`",
                "creds",
                key,
            )
