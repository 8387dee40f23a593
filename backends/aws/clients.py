"""Make boto3 clients: AWS's own chain of credentials, few attempts, short time-outs.

A profile, SSO, a role (with its external id), a web identity (OIDC in CI), keys in the environment, an instance's own
role and `AWS_ENDPOINT_URL` all work, since botocore finds them. `AWS_MAX_ATTEMPTS` and `AWS_RETRY_MODE` are a
person's to set.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from backends.credentials import referenced
from backends.errors import BackendError, LackingHere

if TYPE_CHECKING:
    from schemas.desired import BackendConfig

ATTEMPTS = "4"  # all in all
CONNECT, READ = 5, 30  # seconds
POOL = 32  # requests at once
KEYS = {
    "access_key": "aws_access_key_id", "secret_key": "aws_secret_access_key", "session_token": "aws_session_token",
}  # fmt: skip

_lock = threading.Lock()
_loader: list[Any] = []
_sessions: dict[str, Any] = {}
_clients: dict[tuple[str, str, str, bool], Any] = {}


def client(config: BackendConfig, service: str, region: str, *, once: bool = False) -> Any:
    """A client of that service there, one for the process; it may be used by several threads at once.

    No request is made, but where credentials must be asked for. `BackendError` where there are none, naming what
    would give some. `once`: a call is one request; whoever makes it sends it again, and knows when not to.
    """
    if config.withheld:
        raise BackendError(f"{config.name}: nothing is sent to {config.endpoint}: {config.withheld}")
    own = _own(os.environ)
    key = credentials_key(config)
    with _lock:  # botocore's sessions are not safe to make clients with at once
        if key not in _sessions:
            _sessions[key] = _session(config, region)
        if (key, service, region, once) not in _clients:
            made = _client(_sessions[key], service, region, own, once=once, endpoint=config.endpoint)
            _clients[key, service, region, once] = made
        return _clients[key, service, region, once]


def bucket_session(config: BackendConfig) -> Any:
    """A session with the credentials and role of `config`, for its buckets. No request is made.

    Its region is that of the environment, of the profile, or the first of `config`.
    Raises `BackendError` where there is no such profile, or its endpoint is not confirmed.
    """
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    if config.withheld:
        raise BackendError(f"{config.name}: nothing is sent to {config.endpoint}: {config.withheld}")
    creds = config.options.get("creds") or {}
    try:
        known = Session(profile=_profile(creds.get("profile") or "", os.environ)).get_config_variable("region")
    except BotoCoreError as error:
        raise LackingHere(str(error)) from None
    return _session(config, os.environ.get("AWS_REGION") or known or next(iter(config.regions), ""))


def credentials_key(config: BackendConfig) -> str:
    """The same for the same credentials, as far as this process can tell without asking."""
    text = json.dumps([config.options.get("creds"), config.endpoint, _own(os.environ)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _own(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the environment makes another client."""
    return {name: value for name, value in environ.items() if name.startswith("AWS_")}


def _client(session: Any, service: str, region: str, environ: Mapping[str, str], *, once: bool, endpoint: str) -> Any:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    retries = {
        "total_max_attempts": 1 if once else int(environ.get("AWS_MAX_ATTEMPTS") or ATTEMPTS),
        "mode": environ.get("AWS_RETRY_MODE") or "standard",
    }
    settings = Config(
        connect_timeout=CONNECT,
        read_timeout=READ,
        retries=retries,
        max_pool_connections=POOL,
        user_agent_extra="dstack-pools",
    )
    try:
        if session.get_credentials() is None:
            raise LackingHere(NO_CREDENTIALS)
        return session.client(service, region_name=region, config=settings, endpoint_url=endpoint or None)
    except (BotoCoreError, ValueError) as error:
        raise BackendError(str(error)) from None


NO_CREDENTIALS = (
    "no AWS credentials here: set AWS_PROFILE (then `aws sso login`, or `dstack aws configure`), or AWS_ACCESS_KEY_ID "
    "and AWS_SECRET_ACCESS_KEY, or `creds: {profile: NAME}` of the backend, or give this machine a role"
)


def _session(config: BackendConfig, region: str) -> Any:
    try:
        from boto3 import Session
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise LackingHere("boto3 is missing here: `pip install boto3 obstore` (the extra `aws`)") from None
    creds = config.options.get("creds") or {}
    keys = {known: referenced(name, creds[name], os.environ) for name, known in KEYS.items() if creds.get(name)}
    try:
        profile, home = _profile(creds.get("profile") or "", os.environ), region or "us-east-1"
        session = Session(botocore_session=_core(), profile_name=profile, region_name=home, **keys)
        return as_role(session, creds, endpoint=config.endpoint) if creds.get("role_arn") else session
    except BotoCoreError as error:
        raise LackingHere(str(error)) from None


def _core() -> Any:
    """botocore's session; all of them read the descriptions of AWS's services once."""
    from botocore.loaders import create_loader
    from botocore.session import Session

    core = Session()
    if not _loader:
        _loader.append(create_loader(core.get_config_variable("data_path")))
    core.register_component("data_loader", _loader[0])
    return core


GIVES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def _profile(name: str, environ: Mapping[str, str]) -> str | None:
    """A machine that has no such profile, such as CI, may have credentials in its environment: those count there.

    Another account's do no harm: the place is pinned to who answered first.
    """
    from botocore.session import Session

    if not name or (any(environ.get(one) for one in GIVES) and name not in Session().available_profiles):
        return None
    return name


def as_role(session: Any, creds: Mapping[str, str], *, endpoint: str = "") -> Any:
    """The role's own credentials, asked for when first needed and again before they end."""
    from boto3 import Session
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    extra = {"RoleSessionName": "dstack-pools"}
    if creds.get("external_id"):
        extra["ExternalId"] = creds["external_id"]
    core = session._session
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=partial(core.create_client, endpoint_url=endpoint) if endpoint else core.create_client,
        source_credentials=session.get_credentials(),
        role_arn=creds["role_arn"],
        extra_args=extra,
    )
    role = _core()
    role._credentials = DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")
    return Session(botocore_session=role, region_name=session.region_name)
