"""A backend's credentials are references, read from the environment when they are used."""

from __future__ import annotations

import pytest

from backends.credentials import credential
from backends.errors import BackendError
from schemas.desired import BackendConfig

ENVIRON = {"MY_KEY": "s3cr3t", "CLOUD_API_KEY": "usual"}


def config(**creds: str) -> BackendConfig:
    return BackendConfig(name="cloud", type="sketch", options={"creds": creds} if creds else {})


def test_a_reference_is_read_where_one_is_configured() -> None:
    there = config(api_key="${{ env.MY_KEY }}")
    assert credential(there, "api_key", default="CLOUD_API_KEY", environ=ENVIRON) == "s3cr3t"
    assert credential(config(), "api_key", default="CLOUD_API_KEY", environ=ENVIRON) == "usual"


@pytest.mark.parametrize(
    ("there", "environ", "why"),
    [
        (config(api_key="s3cr3t"), ENVIRON, "creds.api_key is no reference"),
        (config(api_key="${{ env.OTHER }}"), ENVIRON, "creds.api_key needs OTHER, not set here"),
        (config(api_key="${{ env.EMPTY }}"), {"EMPTY": ""}, "creds.api_key needs EMPTY, not set here"),
        (config(), {}, "cloud: no credentials. Set CLOUD_API_KEY, or `creds: {api_key: "),
    ],
)
def test_what_is_missing_is_named_and_no_value_shown(there: BackendConfig, environ: dict[str, str], why: str) -> None:
    with pytest.raises(BackendError) as found:
        credential(there, "api_key", default="CLOUD_API_KEY", environ=environ)
    assert why in str(found.value)
    assert "s3cr3t" not in str(found.value)
