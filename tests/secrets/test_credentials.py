"""Credentials as each cloud's own tools find them; where there are none, that is said, with what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doubles.buckets.buckets import Server
from tests.doubles.commands.command import POOLS, ROOT, folder_at

SSO = "sso_start_url = https://x.awsapps.com/start\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = r\n"
CONFIG = f"[profile team]\nregion = eu-west-1\n[profile broken]\ncredential_process = /bin/false\n[profile sso]\n{SSO}"
SECRET = "averysecretkey"
BLOCKED = """
import sys
for name in {names!r}:
    sys.modules[name] = None
from reconciler.store.objects.open import open_bucket
from schemas.location import location
try:
    open_bucket(location({url!r}), environ={{}})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"AWS_PROFILE": "team"}, "nothing was applied yet"),
        ({"AWS_PROFILE": "nope"}, "The config profile (nope) could not be found"),
        ({"AWS_PROFILE": "broken"}, "retrieving credentials from custom-process"),
        ({"AWS_PROFILE": "sso"}, "no credentials were found, or they have expired: log in again"),
        ({}, "no AWS credentials here: set AWS_PROFILE"),
    ],
)
def test_aws(tmp_path: Path, server_of: Callable[[str], Server], environ: dict[str, str], says: str) -> None:
    moto = server_of("moto")
    project = folder_at(tmp_path, documents=POOLS)
    project.write(".dstack/state.yml", f"state: {moto.state('first-bucket', 'credentials')}\n")
    home = Path(project.env["HOME"])
    (home / ".aws").mkdir()
    keys = f"[team]\naws_access_key_id = AKIATEAM\naws_secret_access_key = {SECRET}\n"
    (home / ".aws/credentials").write_text(keys)
    (home / ".aws/config").write_text(CONFIG)
    none = {"AWS_ENDPOINT_URL": moto.url, "AWS_EC2_METADATA_DISABLED": "true"}
    shown = project.dstack("state", "show", env={**none, **environ})
    assert (shown.code, says in shown.err) == (1, True), shown.said
    assert SECRET not in shown.said


@pytest.mark.parametrize(
    ("url", "names", "extra"),
    [
        ("s3://team-states", ["obstore"], "aws"),
        ("s3://team-states", ["boto3"], "aws"),
        ("gs://team-states", ["google.cloud.storage"], "gcp"),
        ("az://account/states", ["obstore"], "azure"),
        ("az://account/states", ["azure.identity"], "azure"),
    ],
)
def test_a_client_that_is_not_installed(url: str, names: list[str], extra: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(names=names, url=url)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": "/nowhere", "PATH": "/usr/bin", "STORAGE_EMULATOR_HOST": "http://127.0.0.1:1"},
    )
    assert done.stdout.startswith("StateRefused"), done
    assert f"(the extra `{extra}`)" in done.stdout


def test_google_without_any(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(names=[], url="gs://team-states")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin", "NO_GCE_CHECK": "true"},
    )
    assert "gcloud auth application-default login" in done.stdout, done
