"""What this machine lacks, before any backend is asked: packages, the project's key, secrets, git's history."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec

from backends.checks import BackendCheck, NotKnown
from backends.errors import LackingHere
from reconciler.app.site import Site
from reconciler.config.git_revision import is_shallow
from reconciler.secrets.project_key import VARIABLE, KeyRefused, project_key
from reconciler.secrets.resolve import lacking
from reconciler.store.objects.open import EXTRAS
from reconciler.system.git import GitFailed
from schemas.desired import Desired
from schemas.location import Bucket

NAME = "here"
PROBED = {"boto3": "boto3", "obstore": "obstore", "google-cloud-storage": "google.cloud.storage",
          "azure-storage-blob": "azure.storage.blob", "azure-identity": "azure.identity"}  # fmt: skip
"""Package -> the module that it brings."""


def probes_here(site: Site, desired: Desired, environ: Mapping[str, str]) -> Iterator[BackendCheck]:
    """Each changes nothing. What one machine lacks says nothing of the others."""
    extra = _extra(site)
    then = f"pip install 'dstack-pools[{extra}]'" if extra else ""
    yield BackendCheck(name="packages", look=lambda: _packages(site), then=then)
    key = f"`dstack backend key` makes it; here, set {VARIABLE} to the content of .dstack/keys/project.key"
    yield BackendCheck(name="project key", look=lambda: _key(site, desired, environ), then=key)
    set_them = "set them here, or apply where they are"
    yield BackendCheck(name="secrets", look=_secrets(site, desired, environ), then=set_them)
    deepen = "`git fetch --unshallow`, in a workflow `fetch-depth: 0`"
    yield BackendCheck(name="git history", look=lambda: _history(site), then=deepen)


def _extra(site: Site) -> str:
    where = site.location
    return EXTRAS[where.scheme][0] if isinstance(where, Bucket) else ""


def _packages(site: Site) -> str:
    """Of the bucket of the state; a backend's own are asked for by its first check."""
    where = site.location
    if not isinstance(where, Bucket):
        return "nothing besides the package itself"
    _, packages = EXTRAS[where.scheme]
    missing = [one for one in packages.split() if one in PROBED and not _is_there(PROBED[one])]
    if missing:
        raise LackingHere(f"{where.url} needs {', '.join(missing)}, not installed here")
    return packages.replace(" ", ", ")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _key(site: Site, desired: Desired, environ: Mapping[str, str]) -> str:
    bought = any(config.traits.bought and config.traits.available for config in desired.backends)
    try:
        project_key(site.keys, environ=environ, mint=False)
    except KeyRefused as error:
        if bought and environ.get("CI"):  # elsewhere the first apply that needs it makes it
            raise LackingHere(str(error)) from None
        raise NotKnown("none here: machines of clouds, and values given by `-e`, need it") from None
    return f"${VARIABLE}" if environ.get(VARIABLE) else str(site.keys / "project.key")


def _secrets(site: Site, desired: Desired, environ: Mapping[str, str]) -> Callable[[], str]:
    def look() -> str:
        lacks = {run.name: lacking(run, desired, environ, root=site.root) for run in desired.runs}
        found = [f"run {name}: {why}" for name, why in lacks.items() if why]
        if found:
            raise LackingHere("; ".join(found))
        return f"{len(lacks)} declared runs have what they need" if lacks else "no declared run needs any"

    return look


def _history(site: Site) -> str:
    try:
        shallow = is_shallow(site.root)
    except GitFailed as error:
        raise LackingHere(str(error)) from None
    if shallow is None:
        raise NotKnown("not a git repository")
    if shallow:
        raise LackingHere("shallow: git cannot prove here which configuration is newer")
    return "whole"
