"""Ask Lambda Cloud about one account: its requests, their pace, what its errors mean, and the key that names it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backends.base import Setting
from backends.credentials import credential
from backends.errors import TryLater
from backends.http import Api
from backends.http_answers import ApiError, Dialect, HttpAnswer, base_url, rows
from backends.naming import PREFIX, project8
from schemas.desired import BackendConfig

ADDRESS = "https://cloud.lambda.ai/api/v1"
KEY = "LAMBDA_API_KEY"
PATIENCE = 60.0
"""Seconds for one request, the wait for its turn included."""
PACE = 1.0
"""Seconds between two requests of one account: what Lambda allows."""
DIALECT = Dialect(
    errors={
        (400, "instance-operations/launch/insufficient-capacity"): "capacity",
        (400, "instance-operations/launch/file-system-in-wrong-region"): "permanent",
        (400, "global/quota-exceeded"): "quota",
        (400, "global/invalid-parameters"): "permanent",
        (400, "global/object-does-not-exist"): "missing",
        (401, "global/invalid-api-key"): "permanent",
        (403, "global/account-inactive"): "permanent",
        (403, "global/invalid-address"): "permanent",
        (403, "global/forbidden"): "permanent",
        (403, "global/quota-exceeded"): "quota",
        (404, "global/object-does-not-exist"): "missing",
        (409, "global/conflict"): "later",
    },
    code=lambda body: body["error"]["code"],
    words=lambda body: body["error"]["message"],
    quota=lambda body: "instances of the account",
)

_apis: dict[tuple[str, str], Api] = {}
_identities: dict[str, str] = {}
_making = threading.Lock()


def api_of(config: BackendConfig) -> Api:
    """The one way of this process to the account of that key, so that all of its requests keep one pace."""

    def headers() -> Mapping[str, str]:
        return {"Authorization": f"Bearer {credential(config, 'api_key', default=KEY)}"}

    base = base_url(ADDRESS, config.options.get("endpoint") or "")
    known = (base, hashlib.sha256(str(config.options.get("creds")).encode()).hexdigest())
    with _making:
        if known not in _apis:
            _apis[known] = Api(base, headers=headers, dialect=DIALECT, interval=PACE)
        return _apis[known]


def account_of(config: BackendConfig, setting: Setting) -> Account:
    """Whose identity is asked for once a process, as long as the API key and the endpoint stay the same."""

    def known_as() -> str:
        said = (config.options.get("endpoint"), setting.project, credential(config, "api_key", default=KEY))
        return hashlib.sha256(repr(said).encode()).hexdigest()

    return Account(api_of(config), setting, known_as=known_as)


class Account:
    """Requests to one account on behalf of one project. Each raises `TryLater` or `ApiError`."""

    def __init__(self, api: Api, setting: Setting, *, known_as: Callable[[], str] | None = None) -> None:
        self._api, self._setting, self._known_as = api, setting, known_as
        self._id = ""
        self._lock = threading.Lock()

    def read(self, path: str) -> HttpAnswer:
        return self._api.read(path, deadline=self._api.deadline(PATIENCE))

    def write(self, method: str, path: str, body: Any = None) -> HttpAnswer:
        return self._api.write(method, path, body, deadline=self._api.deadline(PATIENCE))

    def listed(self, path: str) -> list[dict[str, Any]]:
        return rows(self.read(path), "data", where=f"Lambda's {path}")

    @property
    def name(self) -> str:
        """Of what we make there that is no instance."""
        return f"{PREFIX}{project8(self._setting.project)}"

    def identity(self) -> str:
        """The id of the project's public key at Lambda, registered where it is not there yet.

        No request names the account, and an API key may be replaced at any time; an SSH key belongs to one account.
        """
        with self._lock:
            known = self._known_as() if self._known_as is not None else ""
            found = _identities.get(known, "") or self._id
            if not found:
                found = str(self._registered(self.name)["id"])
            if known:
                _identities[known] = found
            self._id = found
            return f"ssh-key {found}"

    def login_key(self) -> str:
        """The name of a registered key that is ours: whoever holds it may log in as Lambda's own user."""
        public = self._public()
        own = self._found(self.listed("/ssh-keys"), self.name, public=public)
        if own is not None and _same(own.get("public_key"), public):
            return str(own["name"])
        return str(self._registered(f"{self.name}-{hashlib.sha256(public.encode()).hexdigest()[:8]}")["name"])

    def _registered(self, name: str) -> dict[str, Any]:
        found = self._found(self.listed("/ssh-keys"), name)
        if found is None:
            public = self._public()
            try:
                self.write("POST", "/ssh-keys", {"name": name, "public_key": public})
            except (ApiError, TryLater) as error:
                failed: Exception | None = error  # another process may have made it at the same time
            else:
                failed = None
            found = self._found(self.listed("/ssh-keys"), name, public=public)
            if found is None:
                raise failed or TryLater(f"Lambda does not list the SSH key {name} yet")
        return found

    def _found(self, keys: Sequence[dict[str, Any]], name: str, *, public: str = "") -> dict[str, Any] | None:
        """That key, else one with the same public key: Lambda refuses to have one of them twice."""
        order = sorted(keys, key=lambda one: str(one.get("id")))
        named = [one for one in order if one.get("name") == name]
        alike = [one for one in order if public and _same(one.get("public_key"), public)]
        return next(iter(named or alike), None)

    def _public(self) -> str:
        return self._setting.boot("account").authorized_keys[0]


def _same(found: Any, public: str) -> bool:
    """Whether two public keys are one, whatever their comments."""
    return str(found).split()[:2] == public.split()[:2]
