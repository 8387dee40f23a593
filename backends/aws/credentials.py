"""Verify credentials, and write them to AWS's own file. Secrets never enter messages or project files."""

from __future__ import annotations

import configparser
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.aws.clients import as_role
from backends.aws.errors import ask, code_of, understood
from backends.errors import BackendError, CallFailed, LackingHere

KEY_ID = re.compile(r"A(?:KIA|SIA)[A-Z0-9]{10,124}")
PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+=-]{0,63}")
SECTION = re.compile(r"\s*\[\s*(?P<name>[^\]]*?)\s*\]\s*(?:[#;].*)?$")
OURS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
MARK = "dstack-check"


@dataclass(frozen=True, kw_only=True)
class Keys:
    """A key of an IAM user, as a person gave it."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Caller:
    account: str
    arn: str


def caller(*, region: str, keys: Keys | None = None, profile: str = "") -> tuple[Caller, Any]:
    """Who that is, by AWS's own word, and its session. Raises `BackendError` with what to do."""
    session = _session(region, keys, profile)
    return _who(session), session


def in_role(session: Any, role_arn: str, *, external_id: str = "") -> Caller:
    """Who one is once one has taken it on, as the backend will. Raises `BackendError` in AWS's own words."""
    try:
        return _who(as_role(session, {"role_arn": role_arn, "external_id": external_id}))
    except CallFailed as error:
        raise BackendError(f"role {role_arn}: {error}") from None


def _who(session: Any) -> Caller:
    answer = ask(_client(session, "sts"), "get_caller_identity")
    return Caller(account=str(answer["Account"]), arn=str(answer["Arn"]))


def check_region(session: Any, region: str) -> None:
    """Refuses what no part of AWS has."""
    from difflib import get_close_matches

    known = [one for part in session.get_available_partitions() for one in session.get_available_regions("ec2", part)]
    if region not in known:
        close = get_close_matches(region, known, n=2)
        raise BackendError(f"region {region}: AWS has no such one{f'; did you mean {close[0]}?' if close else ''}")


def check_bucket(session: Any, bucket: str, prefix: str = "") -> str:
    """Its region. It must be there, and take an object, which is removed again."""
    s3 = _client(session, "s3")
    key = f"{prefix}/{MARK}" if prefix else MARK
    try:
        answer = ask(s3, "head_bucket", Bucket=bucket)
        ask(s3, "put_object", Bucket=bucket, Key=key, Body=b"")
        ask(s3, "delete_object", Bucket=bucket, Key=key)
    except CallFailed as error:
        raise BackendError(f"bucket {bucket}: {error}{_meant(str(error))}") from None
    return str(answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region") or "")


def _meant(words: str) -> str:
    if words.startswith("404"):
        return "; there is no such bucket: make it first (`aws s3 mb s3://NAME`)"
    return "; it is not these credentials' to read: is it another account's?" if words.startswith("403") else ""


def _session(region: str, keys: Keys | None, profile: str) -> Any:
    try:
        from boto3 import Session
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise LackingHere("boto3 is missing here: `pip install boto3 obstore` (the extra `aws`)") from None
    try:
        if keys is not None:
            return Session(aws_access_key_id=keys.id, aws_secret_access_key=keys.secret, region_name=region or None)
        return Session(profile_name=profile or None, region_name=region or None)
    except BotoCoreError as error:
        raise BackendError(f"{error}; `aws configure list-profiles` lists them") from None


def _client(session: Any, service: str) -> Any:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        if session.get_credentials() is None:
            raise BackendError("there are no credentials in it: `aws sso login --profile NAME`, or give a key")
        settings = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 3, "mode": "standard"})
        return session.client(service, region_name=session.region_name or "us-east-1", config=settings)
    except (BotoCoreError, ValueError) as error:
        raise understood(error) if code_of(error) else BackendError(str(error)) from None


# ---------------------------------------------------------------- AWS's file of keys


def credentials_file(environ: Mapping[str, str], *, home: Path) -> Path:
    """Where AWS's own tools look for keys."""
    said = environ.get("AWS_SHARED_CREDENTIALS_FILE")
    if said and said != os.devnull:
        return Path(said.replace("~", str(home), 1) if said.startswith("~/") else said)
    return home / ".aws" / "credentials"


def known_key(path: Path, profile: str) -> str:
    """The id of the key that the profile has there; "" where it has none."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text() if path.exists() else "")
    except (configparser.Error, UnicodeDecodeError) as error:
        # Its message may quote lines, and so a secret.
        raise BackendError(f"{path}: cannot be read as AWS's credentials ({type(error).__name__})") from None
    return parser.get(profile, OURS[0], fallback="")


def store_keys(path: Path, profile: str, keys: Keys) -> None:
    """That profile's key, whole or not at all, for its owner alone; every other line as it was."""
    target = Path(os.path.realpath(path))
    text = target.read_text() if target.exists() else ""
    _replace(target, with_keys(text, profile, keys))


def with_keys(text: str, profile: str, keys: Keys) -> str:
    """`text` with the key in the section of that profile; a session's token there would not fit it and goes."""
    lines = text.splitlines(keepends=True)
    newline = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += newline
    said = [f"{OURS[0]} = {keys.id}{newline}", f"{OURS[1]} = {keys.secret}{newline}"]
    start = next((at for at, line in enumerate(lines) if (m := SECTION.match(line)) and m["name"] == profile), None)
    if start is None:
        gap = [newline] if lines and lines[-1].strip() else []
        return "".join([*lines, *gap, f"[{profile}]{newline}", *said])
    end = next((at for at in range(start + 1, len(lines)) if SECTION.match(lines[at])), len(lines))
    kept = [line for line in lines[start + 1 : end] if line.partition("=")[0].strip().lower() not in OURS]
    return "".join([*lines[: start + 1], *said, *kept, *lines[end:]])


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(handle, "w", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
