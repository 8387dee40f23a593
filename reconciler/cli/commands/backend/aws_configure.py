"""`dstack aws configure`: check credentials, store them in AWS's own file, and declare the backend.

Checked before anything is written; the key is stored before a document names its profile. A secret is read from the
terminal, unseen, or from standard input; it is in no argument, no document and no message.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.errors import CallFailed
from backends.registry import configure_of
from reconciler.cli.commands.pool.edit import COMMIT, put_edits, show_edits
from reconciler.cli.exits import Fail
from reconciler.cli.project import project_root
from reconciler.cli.terminal.streams import NoTerminal, ask, ask_hidden, ask_text, interactive, out, say
from reconciler.config.edit.backend import declares_any, set_aws
from reconciler.config.edit.pools import Edit, EditRefused
from schemas.base import NAME
from schemas.location import Bucket, location

TYPE = "aws"  # the command is called so: `dstack aws configure`
DEFAULT_PROFILE = "dstack"
FLAGS = (
    "there is no terminal to ask at: give --profile NAME, or --key-id ID --secret-stdin with the secret on standard "
    "input, and --region NAME"
)


@dataclass(frozen=True, kw_only=True)
class AwsAsk:
    """The flags as given, "" where one was not. `secret_stdin`: the secret is the first line there."""

    name: str
    profile: str
    key_id: str
    secret_stdin: bool
    region: str
    bucket: str
    role_arn: str
    external_id: str
    as_json: bool
    yes: bool


def configure(asked: AwsAsk) -> int:
    """0 once the credentials work and the documents have the backend."""
    root = project_root()
    if not re.fullmatch(NAME, asked.name):
        raise Fail(f"--name {asked.name}: not a name: a-z, then up to 40 of a-z, 0-9 and -")
    keys, profile = _credentials(asked)
    region = asked.region or _asked("Region (such as us-east-1): ", missing="--region")
    told = asked.bucket or (ask_text("S3 bucket for artifacts (or empty): ") if _asks(asked) else "")
    bucket = _bucket(told)
    who, there = _checked(asked, keys=keys, profile=profile, region=region, bucket=bucket)
    edits = _edits(root, asked, profile=profile, region=region, bucket=bucket)
    say(f"account {who.account} as {who.arn}")
    if there and there != region:
        say(f"note: bucket {bucket.bucket if bucket else ''} is in {there}, not in {region}: traffic between costs")
    stored = _store(keys, profile, yes=asked.yes)
    first = not declares_any(root / ".dstack")
    if edits:
        show_edits(root, edits, quiet=asked.as_json)
        put_edits(edits)
        say(COMMIT)
    if first:
        say("note: it is the first backend that is declared; add `- type: local` to go on with this machine, too")
    files = [edit.path.name for edit in edits]
    _report(asked, who=who, profile=profile, region=region, bucket=bucket, stored=stored, files=files)
    return 0


# ---------------------------------------------------------------- what is asked


def _asks(asked: AwsAsk) -> bool:
    """A person is there, and said nothing of it by flags."""
    return interactive() and not (asked.key_id or asked.profile or asked.region or asked.yes or asked.as_json)


def _credentials(asked: AwsAsk) -> tuple[Any, str]:
    """A key and the profile that it goes to, or a profile that is there."""
    if asked.secret_stdin and not asked.key_id:
        raise Fail("--secret-stdin: whose secret? Give --key-id ID, too")
    key_id, profile = asked.key_id, asked.profile
    if not key_id and not profile:
        key_id = _asked("Access key id (empty: a profile that you have): ", missing=FLAGS, empty=True)
        profile = "" if key_id else _asked("Profile: ", missing=FLAGS)
    if not key_id:
        return None, _profile(profile)
    if not configure_of(TYPE).KEY_ID.fullmatch(key_id):
        raise Fail("that is no access key id: AKIA and 16 more of A-Z and 0-9")
    if key_id.startswith("ASIA"):
        raise Fail("an ASIA… key is a temporary one: `aws sso login` with --profile NAME, or its three AWS_… variables")
    return configure_of(TYPE).Keys(id=key_id, secret=_secret(asked)), _profile(profile or DEFAULT_PROFILE)


def _secret(asked: AwsAsk) -> str:
    if asked.secret_stdin:
        secret = sys.stdin.readline().strip()
    elif interactive():
        secret = ask_hidden("Secret access key (hidden): ").strip()
    else:
        raise Fail(FLAGS)
    if not re.fullmatch(r"[A-Za-z0-9/+=]{16,128}", secret):
        raise Fail("that is no secret access key: 40 of A-Z, a-z, 0-9, / and +")
    return secret


def _profile(name: str) -> str:
    if not configure_of(TYPE).PROFILE.fullmatch(name):
        raise Fail(f"--profile {name}: not a name of a profile")
    return name


def _asked(question: str, *, missing: str, empty: bool = False) -> str:
    """A person's answer. `Fail` where nobody is there, or nothing was said that must be."""
    if not interactive():
        raise Fail(missing if missing == FLAGS else f"there is no terminal to ask at: give {missing}")
    answer = ask_text(question).strip()
    if not answer and not empty:
        raise Fail("nothing was said; nothing was done")
    return answer


def _bucket(text: str) -> Bucket | None:
    """`NAME`, `NAME/PREFIX` or `s3://NAME/PREFIX`."""
    if not text.strip():
        return None
    try:
        found = location(text if "://" in text else f"s3://{text.strip()}")
    except ValueError as error:
        raise Fail(f"--bucket {text}: {error}") from None
    if not isinstance(found, Bucket) or found.scheme != "s3":
        raise Fail(f"--bucket {text}: a bucket of S3, such as s3://my-team/artifacts")
    return found


# ---------------------------------------------------------------- checked, then written


def _checked(asked: AwsAsk, *, keys: Any, profile: str, region: str, bucket: Bucket | None) -> tuple[Any, str]:
    """Who the backend will be, and where the bucket lies."""
    try:
        who, session = configure_of(TYPE).caller(region=region, keys=keys, profile="" if keys else profile)
        configure_of(TYPE).check_region(session, region)
        if asked.role_arn:
            who = configure_of(TYPE).in_role(session, asked.role_arn, external_id=asked.external_id)
        return who, configure_of(TYPE).check_bucket(session, bucket.bucket, bucket.prefix) if bucket else ""
    except CallFailed as error:
        of = f"key {asked.key_id or keys.id}" if keys else f"profile {profile}"
        raise Fail(f"{of}: {error}; nothing was written") from error


def _edits(root: Path, asked: AwsAsk, *, profile: str, region: str, bucket: Bucket | None) -> tuple[Edit, ...]:
    creds = {"profile": profile} if profile != "default" else {}
    creds |= {"role_arn": asked.role_arn} if asked.role_arn else {}
    creds |= {"external_id": asked.external_id} if asked.external_id else {}
    store = bucket.url if bucket else ""
    try:
        return set_aws(root / ".dstack", asked.name, type=TYPE, creds=creds, region=region, store=store)
    except EditRefused as error:
        raise Fail(str(error)) from error


def _store(keys: Any, profile: str, *, yes: bool) -> str:
    """Into AWS's file; another key of that profile is not replaced unasked. The file, or "" where none was written."""
    if keys is None:
        return ""
    path = configure_of(TYPE).credentials_file(os.environ, home=Path.home())
    try:
        known = configure_of(TYPE).known_key(path, profile)
        if known not in ("", keys.id) and not yes and not _replaces(known, profile, path):
            raise Fail("nothing was written")
        configure_of(TYPE).store_keys(path, profile, keys)
    except CallFailed as error:
        raise Fail(str(error)) from error
    except OSError as error:
        raise Fail(f"{path}: {error.strerror or error}; nothing was written") from None
    say(f"the key is profile {profile} in {path}")
    return str(path)


def _replaces(known: str, profile: str, path: Path) -> bool:
    question = f"profile {profile} in {path} has key {known} already; replace it?"
    try:
        return ask(question)
    except NoTerminal as error:
        raise Fail(f"{question} There is no terminal to ask at: add -y, or choose another --profile") from error


def _report(
    asked: AwsAsk, *, who: Any, profile: str, region: str, bucket: Bucket | None, stored: str, files: list[str]
) -> None:
    if not asked.as_json:
        closer = f"`dstack backend check {asked.name}` looks closer"
        out(f"backend {asked.name}: account {who.account}, {region}; {closer}\n")
        return
    from reconciler.report.json import dump

    out(dump({
        "version": 1, "backend": asked.name, "account": who.account, "arn": who.arn, "profile": profile,
        "region": region, "bucket": bucket.url if bucket else None, "credentials_file": stored or None,
        "files": files,
    }))  # fmt: skip
