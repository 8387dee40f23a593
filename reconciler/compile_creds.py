"""A backend's credentials that are a declared secret, as the variable that the secret is read from. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec.structs import replace

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
