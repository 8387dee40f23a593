"""AWS set up by commands, against the double: checked first, the secret in AWS's own file and nowhere else."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from backends.aws.checks import probes
from backends.aws.credentials import Keys, with_keys
from backends.errors import BackendError
from backends.registry import parameter
from reconciler.cli.commands.backend.run_checks import looked
from reconciler.config.edit.backend import set_aws
from reconciler.secrets.errors import SecretLacking
from reconciler.secrets.resolve import resolve
from schemas.desired import BackendConfig, Desired, Secret
from schemas.documents.generate import schema
from schemas.run import RunSpec
from tests.doubles.aws.aws_double import KEY, Account, AwsServer
from tests.doubles.commands.command import Folder, Ran, folder_at
from tests.doubles.commands.pseudo_terminal import at_terminal

SECRET = "canaryCANARY0123456789/+canaryCANARY0123"


@pytest.fixture
def account(aws_server: AwsServer) -> Account:
    return aws_server.account()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return folder_at(tmp_path)


def surroundings(account: Account, folder: Folder, **more: str) -> dict[str, str]:
    """The double's, without its keys: those are what is configured."""
    given = {name: value for name, value in account.environ.items() if "KEY" not in name and "REGION" not in name}
    return {**given, "AWS_SHARED_CREDENTIALS_FILE": str(keys_file(folder)), **more}


def keys_file(folder: Folder) -> Path:
    return folder.root.parent / "aws" / "credentials"


def configure(folder: Folder, account: Account, *args: str, given: str = "") -> Ran:
    return folder.dstack("aws", "configure", *args, env=surroundings(account, folder), given=given)


def test_a_key_from_standard_input(folder: Folder, account: Account) -> None:
    keys_file(folder).parent.mkdir()
    keys_file(folder).write_text("# mine\n[default]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = other\n")
    account.client("s3").create_bucket(
        Bucket=f"team-{account.number}", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    args = ("--key-id", KEY + account.number, "--secret-stdin", "--region", "eu-west-1")
    ran = configure(folder, account, *args, "--bucket", f"team-{account.number}/runs", "--json", given=f"{SECRET}\n")
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    jsonschema.validate(found, schema("aws-configure-json"))
    assert (found["account"], found["profile"], found["backend"]) == (account.number, "dstack", "aws")
    text = keys_file(folder).read_text()
    assert text.startswith("# mine\n[default]\naws_access_key_id = AKIAOTHER\n")
    assert f"[dstack]\naws_access_key_id = {KEY + account.number}\naws_secret_access_key = {SECRET}\n" in text
    assert stat.S_IMODE(keys_file(folder).stat().st_mode) == 0o600
    assert (folder.root / ".dstack/backends.yml").read_text() == (
        "backends:\n  - type: aws\n    regions: [eu-west-1]\n    creds: {profile: dstack}\n"
        f"artifact_store: s3://team-{account.number}/runs\n"
    )
    assert SECRET not in ran.said
    written = [path for path in folder.root.rglob("*") if path.is_file()]
    assert [path for path in written if SECRET in path.read_text(errors="replace")] == []
    again = configure(folder, account, *args, given=f"{SECRET}\n")
    assert (again.code, keys_file(folder).read_text()) == (0, text)
    used = folder.dstack("backend", "check", "--json", env=surroundings(account, folder))
    assert used.out, used
    checks = json.loads(used.out)
    jsonschema.validate(checks, schema("backend-check-json"))
    first = next(one for one in checks["checks"] if one["backend"] != "here")
    assert first["status"] == "ok", "the backend finds the key by its profile"
    assert account.number in first["said"]
    opened = {one["check"]: one["said"] for one in checks["checks"] if one["check"].startswith("credentials of")}
    bucket = f"s3://team-{account.number}/runs"
    assert opened == {f"credentials of {bucket}": "backend aws, the only one of type aws"}
    assert account.living() == []


@pytest.mark.parametrize(
    ("args", "given", "words"),
    [
        ((), "", "there is no terminal to ask at: give --profile NAME, or --key-id ID --secret-stdin"),
        (("--key-id", "nonsense", "--secret-stdin"), "x", "that is no access key id"),
        (("--key-id", "ASIA" + "X" * 16, "--secret-stdin"), "x", "a temporary one"),
        (("--key-id", "AKIA" + "X" * 16, "--secret-stdin"), f"{SECRET} {SECRET}", "no secret access key"),
        (("--secret-stdin",), SECRET, "whose secret?"),
        (("--profile", "nobody", "--region", "eu-west-1"), "", "profile nobody: The config profile (nobody) could not"),
        (("--key-id", "AKIA" + "X" * 16, "--secret-stdin", "--region", "eu-wset-1"), SECRET, "mean eu-west-1?"),
        (("--profile", "p", "--region", "eu-west-1", "--bucket", "gs://xyz"), "", "a bucket of S3"),
    ],
)
def test_what_is_refused_writes_nothing(
    folder: Folder, account: Account, args: tuple[str, ...], given: str, words: str
) -> None:
    ran = configure(folder, account, *args, given=given)
    assert ran.code == 1
    assert words in ran.err
    assert SECRET not in ran.said
    assert not keys_file(folder).exists()
    assert not (folder.root / ".dstack/backends.yml").exists()


def test_credentials_and_buckets_that_do_not_work_are_not_written(folder: Folder, account: Account) -> None:
    args = ("--key-id", KEY + account.number, "--secret-stdin", "--region", "eu-west-1")
    account.fault("GetCallerIdentity", "InvalidClientTokenId", status=403, message="The security token is invalid.")
    ran = configure(folder, account, *args, given=SECRET)
    assert "InvalidClientTokenId: The security token is invalid.; nothing was written" in ran.err
    ran = configure(folder, account, *args, "--bucket", "nobodys-bucket", given=SECRET)
    assert "there is no such bucket" in ran.err
    assert not keys_file(folder).exists()


# ---------------------------------------------------------------- asked at a terminal, and a role


def holding(folder: Folder, secret: str) -> list[Path]:
    """The files that have it, of all that a command may write: the project, the home, AWS's own."""
    written = (path for path in folder.root.parent.rglob("*") if path.is_file())
    return [path for path in written if secret.encode() in path.read_bytes()]


def test_asked_at_a_terminal_the_secret_is_unseen(folder: Folder, account: Account) -> None:
    env = surroundings(account, folder)
    with at_terminal(folder, "aws", "configure", env=env) as terminal:
        terminal.wait_for("Access key id (empty: a profile that you have): ")
        terminal.type(f"{KEY + account.number}\n")
        terminal.wait_for("Secret access key (hidden): ")
        terminal.unechoed()
        process = Path(f"/proc/{terminal.pid}")
        arguments = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        terminal.type(f"{SECRET}\n")
        terminal.wait_for("Region (such as us-east-1): ")
        terminal.type("eu-west-1\n")
        terminal.wait_for("S3 bucket for artifacts (or empty): ")
        terminal.type("\n")
        assert terminal.ends() == 0, terminal.text
    assert SECRET not in terminal.seen
    assert SECRET.encode() not in arguments
    assert f"backend aws: account {account.number}, eu-west-1" in terminal.text
    assert holding(folder, SECRET) == [keys_file(folder)]


@pytest.mark.parametrize(("typed", "code"), [("too short\n", 1), ("\x03", 130)], ids=["no secret", "ctrl-c"])
def test_a_secret_that_is_none_or_not_given_leaves_nothing(
    folder: Folder, account: Account, typed: str, code: int
) -> None:
    args = ("aws", "configure", "--key-id", KEY + account.number)
    with at_terminal(folder, *args, env=surroundings(account, folder)) as terminal:
        terminal.wait_for("Secret access key (hidden): ")
        terminal.unechoed()
        terminal.type(typed)
        assert terminal.ends() == code
    assert ("that is no secret access key" in terminal.text) == (code == 1)
    assert "too short" not in terminal.text
    assert not keys_file(folder).exists()


def test_a_role_is_taken_on_before_it_is_written(folder: Folder, account: Account) -> None:
    args = ("--key-id", KEY + account.number, "--secret-stdin", "--region", "eu-west-1")
    role = f"arn:aws:iam::{account.number}:role/dstack"
    account.fault("AssumeRole", "AccessDenied", status=403, message="not authorized to perform: sts:AssumeRole")
    ran = configure(folder, account, *args, "--role-arn", role, "--external-id", "team-7", given=SECRET)
    assert f"role {role}: AccessDenied: not authorized to perform: sts:AssumeRole" in ran.err, ran
    assert "nothing was written" in ran.err
    assert not keys_file(folder).exists()
    ran = configure(folder, account, *args, "--role-arn", role, "--external-id", "team-7", "--json", given=SECRET)
    assert ran.code == 0, ran
    assert json.loads(ran.out)["arn"].startswith(f"arn:aws:sts::{account.number}:assumed-role/dstack/")
    assert (folder.root / ".dstack/backends.yml").read_text() == (
        "backends:\n  - type: aws\n    regions: [eu-west-1]\n"
        f"    creds: {{profile: dstack, role_arn: {role}, external_id: team-7}}\n"
    )
    assert holding(folder, SECRET) == [keys_file(folder)]


# ---------------------------------------------------------------- AWS's file of keys


KEYS = Keys(id="AKIANEW", secret="new")
NEW = "aws_access_key_id = AKIANEW\naws_secret_access_key = new\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"[dstack]\n{NEW}"),
        ("[a]\nx = 1", f"[a]\nx = 1\n\n[dstack]\n{NEW}"),
        (
            "[dstack]  # ours\nregion = x\naws_session_token = old\naws_secret_access_key=old\n# kept\n\n[b]\ny = 2\n",
            f"[dstack]  # ours\n{NEW}region = x\n# kept\n\n[b]\ny = 2\n",
        ),
        ("[dstack2]\nx = 1\n", f"[dstack2]\nx = 1\n\n[dstack]\n{NEW}"),
        ("[dstack]\r\nx = 1\r\n", f"[dstack]\r\n{NEW}x = 1\r\n".replace("\nx", "\nx").replace("new\nx", "new\r\nx")),
    ],
)
def test_only_the_profiles_own_lines_change(before: str, after: str) -> None:
    found = with_keys(before, "dstack", KEYS)
    assert found.replace("\r\n", "\n") == after.replace("\r\n", "\n")
    assert ("\r\n" in before) == ("\r\n" in found)


def test_a_secret_is_in_no_representation() -> None:
    assert "new" not in repr(Keys(id="AKIA", secret="new"))


# ---------------------------------------------------------------- the backend's entry


def test_a_backend_is_added_behind_the_others_and_changed_in_place(tmp_path: Path) -> None:
    folder = tmp_path / ".dstack"
    folder.mkdir()
    (folder / "all.yml").write_text("# ours\nbackends:\n  - type: local   # here\n\n# below\nkeep: 5d\n")
    (edit,) = set_aws(folder, "aws", type="aws", creds={"profile": "p"}, region="eu-west-1", store="")
    assert edit.after == (
        "# ours\nbackends:\n  - type: local   # here\n  - type: aws\n    regions: [eu-west-1]\n"
        "    creds: {profile: p}\n\n# below\nkeep: 5d\n"
    )
    edit.path.write_text(edit.after)
    assert set_aws(folder, "aws", type="aws", creds={"profile": "p"}, region="eu-west-1", store="") == ()
    (other,) = set_aws(folder, "aws", type="aws", creds={"profile": "q"}, region="us-east-1", store="s3://b/x")
    assert "# here" in other.after
    assert "# below" in other.after
    assert "profile: q" in other.after
    assert "us-east-1" in other.after
    assert other.after.endswith("artifact_store: s3://b/x\n")


# ---------------------------------------------------------------- checks


def test_each_permission_is_asked_for_and_nothing_is_made(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in account.environ.items():
        monkeypatch.setenv(name, value)
    config = BackendConfig(name=f"aws{account.number}", type="aws", regions=("eu-west-1",))
    account.quota("L-1216C47A", 64)
    account.fault("DescribeSpotPriceHistory", "UnauthorizedOperation", status=403, message="You are not authorized.")
    account.fault("DescribeVpcs", "RequestLimitExceeded", status=503, message="slow down")
    import time

    asked = probes(config, project="demo12345678", buckets=(), now=time.time)
    found = {one.name: one for one in looked("aws", asked, clock=lambda: 0.0)}
    verdicts = {name: one.verdict for name, one in found.items()}
    refused = found.pop("eu-west-1 ec2:DescribeSpotPriceHistory")
    assert (refused.verdict, refused.said) == ("failed", "UnauthorizedOperation: You are not authorized.")
    assert "backend policy" in refused.then
    throttled = found.pop("eu-west-1 ec2:DescribeVpcs")
    assert (throttled.verdict, throttled.then) == ("failed", "try again in a while")
    verdicts.pop("eu-west-1 ec2:DescribeVpcs")
    unknown = {name for name, verdict in verdicts.items() if verdict == "not known"}
    assert unknown == {
        "eu-west-1 ec2:TerminateInstances", "eu-west-1 ec2:AuthorizeSecurityGroupIngress",
        "eu-west-1 ec2:RevokeSecurityGroupIngress",
    }  # fmt: skip
    rest = {name: one.said for name, one in found.items() if name not in unknown and one.verdict != "ok"}
    assert rest == {}
    assert "Standard 64 (spot 5)" in found["eu-west-1 quotas"].said
    assert account.living() == []
    groups = account.client().describe_security_groups()["SecurityGroups"]
    assert [group["GroupName"] for group in groups] == ["default"]


def test_a_clock_that_is_off_fails(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    for name, value in account.environ.items():
        monkeypatch.setenv(name, value)
    config = BackendConfig(name=f"aws{account.number}", type="aws", regions=("eu-west-1",))
    asked = probes(config, project="p", buckets=(), now=lambda: time.time() + 100)
    clock = next(one for one in looked("aws", asked, clock=lambda: 0.0) if one.name == "clock")
    assert clock.verdict == "failed"
    assert "s ahead of AWS's own clock" in clock.said


def test_without_credentials_nothing_else_is_asked(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in account.environ.items():
        monkeypatch.setenv(name, value)
    account.fault("GetCallerIdentity", "ExpiredToken", status=403, message="expired")
    config = BackendConfig(name=f"aws{account.number}", type="aws", regions=("eu-west-1",))
    found = list(looked("aws", probes(config, project="p", buckets=(), now=lambda: 0.0), clock=lambda: 0.0))
    assert [(one.name, one.verdict) for one in found] == [("credentials", "failed")]
    assert "aws configure" in found[0].then
    assert "log in again" in found[0].said


def test_backends_are_listed_and_checked_without_a_cloud(folder: Folder) -> None:
    ran = folder.dstack("backend", "list", "--json")
    found = json.loads(ran.out)
    jsonschema.validate(found, schema("backend-list-json"))
    assert [(one["name"], one["type"], one["instances"]) for one in found["backends"]] == [("local", "local", 0)]
    ran = folder.dstack("backend", "check")
    assert ran.code == 0, ran
    assert "ok     local identity" in ran.out
    ran = folder.dstack("backend", "check", "nope")
    assert "no backend nope; there are local" in ran.err


# ---------------------------------------------------------------- secrets


def test_a_secret_of_the_parameter_store(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in account.environ.items():
        monkeypatch.setenv(name, value)
    account.client("ssm").put_parameter(Name="/team/token", Value=SECRET, Type="SecureString")
    run = RunSpec(name="train", env=(("TOKEN", "${{ secrets.token }}"),))
    config = BackendConfig(name=f"aws{account.number}", type="aws", regions=("eu-west-1",))

    def wants(reference: str) -> Desired:
        return Desired(backends=(config,), secrets=(Secret(name="token", source="ssm", reference=reference),))

    def kept(kind: str, name: str) -> str:
        return parameter(kind, name, (config,))

    assert resolve(run, wants("/team/token"), os.environ, parameter=kept) == {"TOKEN": SECRET}
    with pytest.raises(SecretLacking, match=r"secret token: /team/none in .*/eu-west-1: ParameterNotFound"):
        resolve(run, wants("/team/none"), os.environ, parameter=kept)


def test_an_account_that_is_not_there(monkeypatch: pytest.MonkeyPatch, account: Account) -> None:
    """A profile that only others have does not keep CI from its own credentials."""
    from backends.aws.clients import client

    environ: dict[str, Any] = dict(account.environ)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    config = BackendConfig(name="ci", type="aws", options={"creds": {"profile": "laptop"}})
    assert client(config, "sts", "eu-west-1").get_caller_identity()["Account"] == account.number
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(BackendError, match="laptop"):
        client(config, "sts", "eu-west-1")
