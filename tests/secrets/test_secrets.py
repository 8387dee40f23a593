"""Secrets are references until the job starts: what is missing is named, what is there is never shown."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.secrets.errors import SecretLacking
from reconciler.secrets.project_key import ProjectKey
from reconciler.secrets.resolve import lacking, resolve
from schemas.desired import Desired, Secret
from schemas.run import RunSpec

CANARY = "canary-7f3a"
KEY = ProjectKey(b"k" * 32)


def spec(**env: str | None) -> RunSpec:
    return RunSpec(name="train", env=tuple(env.items()))


def wants(*secrets: tuple[str, str, str]) -> Desired:
    return Desired(secrets=tuple(Secret(name=name, source=source, reference=ref) for name, source, ref in secrets))


NO_ENV: Mapping[str, str] = {}


def test_literals_need_nothing() -> None:
    assert lacking(spec(A="1"), Desired(), NO_ENV) == ""
    assert resolve(spec(A="1", B=""), Desired(), NO_ENV) == {"A": "1", "B": ""}


def test_a_bare_name_comes_from_where_the_job_is_started() -> None:
    assert lacking(spec(HF_TOKEN=None), Desired(), NO_ENV, host="ci") == "needs HF_TOKEN, not set on ci"
    assert lacking(spec(HF_TOKEN=None), Desired(), {"HF_TOKEN": ""}, host="ci") == ""
    assert resolve(spec(HF_TOKEN=None), Desired(), {"HF_TOKEN": CANARY}) == {"HF_TOKEN": CANARY}


def test_a_bare_name_may_be_a_secret() -> None:
    desired = wants(("HF_TOKEN", "env", "MY_TOKEN"))
    assert lacking(spec(HF_TOKEN=None), desired, NO_ENV, host="ci") == "needs MY_TOKEN, not set on ci"
    assert resolve(spec(HF_TOKEN=None), desired, {"MY_TOKEN": "x"}) == {"HF_TOKEN": "x"}


def test_references_inside_text() -> None:
    run = spec(URL="https://${{ env.USER_NAME }}:${{secrets.pw}}@host/${{ other }}")
    desired = wants(("pw", "env", "PASSWORD"))
    assert lacking(run, desired, NO_ENV, host="ci") == "needs USER_NAME, not set on ci; needs PASSWORD, not set on ci"
    there = {"USER_NAME": "me", "PASSWORD": r"a\1${{ env.HOME }}"}
    assert resolve(run, desired, there) == {"URL": r"https://me:a\1${{ env.HOME }}@host/${{ other }}"}


def test_what_is_not_declared() -> None:
    run = spec(A="${{ secrets.nope }}")
    assert lacking(run, Desired(), {"nope": "1"}) == "needs secret nope, not declared: add it under `secrets:`"
    with pytest.raises(SecretLacking, match="needs secret nope"):
        resolve(run, Desired(), NO_ENV)


def test_ssm_without_a_backend_that_could_read_it() -> None:
    desired = wants(("pw", "ssm", "/a/b"))
    run = spec(A="${{ secrets.pw }}")
    words = "needs secret pw from ssm: no backend of type aws is declared to read it with"
    assert lacking(run, desired, NO_ENV) == words
    with pytest.raises(SecretLacking, match=words):
        resolve(run, desired, NO_ENV)


def test_files(tmp_path: Path) -> None:
    run, desired = spec(A="${{ secrets.pw }}"), wants(("pw", "file", "pw.txt"))
    assert lacking(run, desired, NO_ENV, root=tmp_path, host="ci") == (
        "needs the file pw.txt of secret pw, not readable on ci"
    )
    (tmp_path / "pw.txt").write_text("two\nlines\n")
    assert lacking(run, desired, NO_ENV, root=tmp_path) == ""
    assert resolve(run, desired, NO_ENV, root=tmp_path) == {"A": "two\nlines"}
    home = wants(("pw", "file", "~/pw.txt"))
    assert resolve(run, home, {"HOME": str(tmp_path)}, root=Path("/nowhere")) == {"A": "two\nlines"}


def test_a_command_is_run_at_use_only_and_once(tmp_path: Path) -> None:
    run = spec(A="${{ secrets.pw }}", B="${{ secrets.pw }}!")
    desired = wants(("pw", "command", "echo x >> ran; echo secret | tr a-z A-Z"))
    assert lacking(run, desired, NO_ENV, root=tmp_path) == ""
    assert not (tmp_path / "ran").exists()
    assert resolve(run, desired, {"PATH": "/usr/bin:/bin"}, root=tmp_path) == {"A": "SECRET", "B": "SECRET!"}
    assert (tmp_path / "ran").read_text() == "x\n"


@pytest.mark.parametrize(
    "command", [f"echo {CANARY}; echo {CANARY} >&2; exit 3", f"printf '{CANARY}\\377'", f"printf '{CANARY}\\000'"]
)
def test_no_error_shows_a_value(tmp_path: Path, command: str) -> None:
    (tmp_path / "value").write_bytes(CANARY.encode() + b"\xff")
    for source, reference in (("command", command), ("file", "value")):
        with pytest.raises(SecretLacking) as raised:
            resolve(spec(A="${{ secrets.pw }}"), wants(("pw", source, reference)), NO_ENV, root=tmp_path)
        shown = "".join(traceback.format_exception_only(raised.value)) + repr(raised.value)
        assert CANARY not in shown
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None or raised.value.__suppress_context__


def test_sealed_values_win_and_need_the_key() -> None:
    run = RunSpec(name="train", env=(("A", None), ("B", "1")), sealed=(("A", KEY.seal(CANARY.encode())),))
    assert CANARY not in repr(run)
    assert lacking(run, Desired(), NO_ENV) == ""
    assert lacking(run, Desired(), NO_ENV, host="ci", has_key=False) == (
        "needs the project key for A, not on ci: set DSTACK_PROJECT_KEY"
    )
    with pytest.raises(SecretLacking, match="project key"):
        resolve(run, Desired(), NO_ENV)
    assert resolve(run, Desired(), NO_ENV, KEY) == {"A": CANARY, "B": "1"}
