"""Azure Resource Manager by the official client: its credentials, its pipeline, our paths and our patience."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from backends.azure.errors import AzureError, clean, understood
from backends.credentials import referenced
from backends.errors import BackendError, LackingHere, TryLater
from schemas.desired import BackendConfig

COMPUTE = "2024-07-01"
"""Used where the installed client does not say its own version."""
NETWORK = "2023-11-01"
RESOURCES = "2022-09-01"
SUBSCRIPTIONS = "2022-12-01"
CONNECT, READ = 5, 40  # seconds
PAGES = 1000
LONGEST_WAIT = 5  # seconds between two looks at an operation

_lock = threading.Lock()
_clients: dict[str, Any] = {}


class ArmAnswer(NamedTuple):
    """A successful one. `body` is `{}` where there was none; `headers` have lower-case names."""

    status: int
    body: Any
    headers: Mapping[str, str]


class ArmApi:
    """One subscription. Raises what `backends.azure.errors.understood` says, `TryLater` where nothing answered."""

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self.subscription = str(config.options.get("subscription_id") or "")
        self.root = f"/subscriptions/{self.subscription}"

    @property
    def compute(self) -> str:
        """The version of the compute interface that the installed client was made for."""
        return _version(_client(self._config)) or COMPUTE

    def get(self, path: str, *, version: str, query: Mapping[str, str] | None = None) -> ArmAnswer:
        """A read: it is repeated once where nothing answered."""
        return self._ask("GET", path, version=version, query=query, retries=1)

    def found(self, path: str, *, version: str, query: Mapping[str, str] | None = None) -> Any:
        """The body, `None` where Azure says that there is no such thing."""
        try:
            return self.get(path, version=version, query=query).body
        except AzureError as error:
            if error.status == 404:
                return None
            raise

    def write(
        self, method: str, path: str, body: Any = None, *, version: str, query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ArmAnswer:  # fmt: skip
        """Sent once."""
        return self._ask(method, path, version=version, body=body, query=query, headers=headers, retries=0)

    def pages(self, path: str, *, version: str, query: Mapping[str, str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Every row of every page. A page that is no listing raises `TryLater`: what it lacks would count as ended."""
        answer = self.get(path, version=version, query=query)
        for _ in range(PAGES):
            rows = answer.body.get("value") if isinstance(answer.body, Mapping) else None
            if not isinstance(rows, list):
                raise TryLater(f"{path}: what answered is no listing of Azure's")
            yield from (row for row in rows if isinstance(row, Mapping))
            following = answer.body.get("nextLink")
            if not following:
                return
            answer = self._ask("GET", str(following), version="", retries=1)
        raise TryLater(f"{path}: more than {PAGES} pages")

    def followed(self, answer: ArmAnswer, *, patience: float) -> None:
        """Wait for the operation behind `answer`, at most `patience` seconds; one that failed raises its error."""
        url = answer.headers.get("azure-asyncoperation", "")
        ends, wait = time.monotonic() + patience, _seconds(answer.headers)
        while url and time.monotonic() + wait < ends:
            time.sleep(wait)
            look = self._ask("GET", url, version="", retries=1)
            status = str(look.body.get("status") or "") if isinstance(look.body, Mapping) else ""
            if status in ("Failed", "Canceled"):
                raise understood(look.status, look.body)
            if status == "Succeeded":
                return
            wait = _seconds(look.headers)

    def _ask(
        self, method: str, path: str, *, version: str, retries: int, body: Any = None,
        query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None,
    ) -> ArmAnswer:  # fmt: skip
        client = _client(self._config)
        from azure.core.exceptions import AzureError as Unsent
        from azure.core.exceptions import ClientAuthenticationError
        from azure.core.rest import HttpRequest

        url = path if path.startswith("/") else self._ours(path)
        params = dict(query or {}) | ({"api-version": version} if version else {})
        request = HttpRequest(method, url, params=params, json=body, headers=dict(headers or {}))
        limits = {"retry_total": retries, "retry_status": 0, "connection_timeout": CONNECT, "read_timeout": READ}
        try:
            response = client.send_request(request, **limits)
            found = response.json() if response.content else {}
        except ClientAuthenticationError as error:
            raise LackingHere(_first_lines(str(error))) from None
        except (Unsent, ValueError) as error:
            raise TryLater(f"Azure cannot be reached: {clean(str(error))[:300]}") from None
        told = {name.lower(): value for name, value in response.headers.items()}
        if response.status_code >= 300:
            raise understood(response.status_code, found, retry_after=_seconds(told, most=3600, least=0))
        return ArmAnswer(response.status_code, found, told)

    def _ours(self, url: str) -> str:
        """A link that Azure gave, unless it leads elsewhere: the credentials travel with it."""
        base = self._config.endpoint or "https://management.azure.com"
        if _server(url) != _server(base):
            raise TryLater(f"a link of the answer leads away from {base}")
        return url


def _server(url: str) -> tuple[str, str | None, int]:
    """Scheme, host and port; links of Azure's often name the port that goes without saying."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _seconds(headers: Mapping[str, str], *, most: int = LONGEST_WAIT, least: int = 2) -> int:
    """What `Retry-After` says, within bounds."""
    said = headers.get("retry-after", "")
    return min(int(said), most) if said.isdecimal() else least


def _first_lines(words: str) -> str:
    said = clean(" ".join(words.splitlines()[:1]))
    return f"no Azure credentials here: {said[:200]} `az login`, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and a secret"


def _client(config: BackendConfig) -> Any:
    """One for the process and the same credentials."""
    if config.withheld:
        raise BackendError(f"{config.name}: nothing is sent to {config.endpoint}: {config.withheld}")
    said = {name: value for name, value in os.environ.items() if name.startswith("AZURE_")}
    known = [config.options.get(name) for name in ("creds", "tenant_id", "subscription_id", "endpoint")]
    key = hashlib.sha256(json.dumps([known, said], sort_keys=True).encode()).hexdigest()
    with _lock:
        if key not in _clients:
            _clients[key] = _made(config)
        return _clients[key]


def _made(config: BackendConfig) -> Any:
    try:
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, SansIOHTTPPolicy
        from azure.mgmt.compute import ComputeManagementClient
    except ImportError:
        raise LackingHere("azure-mgmt-compute is missing here: `pip install 'dstack-pools[azure]'`") from None
    # Their logger would print each way to log in that was tried.
    logging.getLogger(ComputeManagementClient.__module__.partition(".")[0]).addHandler(logging.NullHandler())
    plain = config.endpoint.startswith("http://")  # this machine alone: no token travels unencrypted
    credential = _NoCredential() if plain else _credential(config)
    policy: Any = SansIOHTTPPolicy()
    if not plain:
        policy = BearerTokenCredentialPolicy(credential, "https://management.azure.com/.default")
    return ComputeManagementClient(
        credential,
        str(config.options.get("subscription_id") or ""),
        base_url=config.endpoint or "https://management.azure.com",
        authentication_policy=policy,
    )


def _credential(config: BackendConfig) -> Any:
    try:
        from azure.identity import ClientSecretCredential, DefaultAzureCredential
    except ImportError:
        raise LackingHere("azure-identity is missing here: `pip install 'dstack-pools[azure]'`") from None
    creds = config.options.get("creds") or {}
    if not creds.get("client_secret"):
        return DefaultAzureCredential()
    id, secret = (referenced(name, creds.get(name) or "", os.environ) for name in ("client_id", "client_secret"))
    return ClientSecretCredential(str(config.options.get("tenant_id") or ""), id, secret)


class _NoCredential:
    """For an endpoint on this machine over http: it gets no token."""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        raise TryLater("no token is sent unencrypted")


def _version(client: Any) -> str:
    """Newer clients say it in the signature of their requests; an older one in its class."""
    try:
        from azure.mgmt.compute.operations._operations import build_virtual_machines_list_all_request as build
    except ImportError:
        return ""
    request = build(subscription_id="s")
    return str(parse_qs(urlsplit(request.url).query).get("api-version", [""])[0])
