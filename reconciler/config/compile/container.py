"""Compile a run's container keys, and refuse those that need an `image`."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.documents.run import DevEnvironmentForm, RunForm
from schemas.run import Container

ANYBODY = "token"
"""Sent as the user to a registry, where only a password is given."""
KEPT_CHANGES = "dstack-changes"
"""Where the supervisor puts what was changed in a dev environment, below its files."""


def container_of(form: RunForm, *, default_image: str) -> Container | None:
    """`None` for a process: neither the run nor its pool names an image. A run's `python` asks for a process too."""
    image = form.image or ("" if form.python else default_image)
    if not image:
        return None
    auth = form.registry_auth if form.image else None
    return Container(
        image=image,
        username=(auth.username or ANYBODY) if auth else "",
        password=auth.password if auth else "",
        entrypoint=form.entrypoint,
        user=form.user or "",
        privileged=bool(form.privileged),
        volumes=form.volumes or (),
    )


def needs_engine(form: RunForm, container: Container | None) -> bool:
    """Whether only docker or podman can run it: a process in an instance made of the image has nothing of this."""
    if container is None:
        return False
    own = container.entrypoint is not None or not (
        getattr(form, "commands", None) or isinstance(form, DevEnvironmentForm)
    )
    changed = container.user or container.privileged or container.volumes
    return bool(own or changed or (form.working_dir or "").startswith("/"))


def unsupported_here(form: RunForm, container: Container | None) -> Iterable[str]:
    """Why the run cannot be as it is written, each a sentence."""
    yield from _without(form) if container is None else _within(form, container)
    folder = form.working_dir or ""
    if folder.startswith("~") or ".." in folder.split("/"):
        yield "a `working_dir` outside of the project's folder is not supported"
    elif folder.startswith("/") and container is None:
        yield "a `working_dir` outside of the project's folder needs an `image`"


def _without(form: RunForm) -> Iterable[str]:
    if form.user is not None:
        yield "`user` needs an `image`: a process is run by whoever logs in to its host"
    if form.privileged:
        yield "`privileged` needs an `image`: a process has the rights of whoever logs in to its host"
    if form.volumes:
        yield "`volumes` need an `image`: a process finds the instance's folders where they are"
    if form.resources is not None and form.resources.shm is not None:
        yield "`shm_size` needs an `image`: a process has the host's own /dev/shm"


def _within(form: RunForm, container: Container) -> Iterable[str]:
    if form.python is not None:
        yield "`python` beside an `image`: an image brings its own, and there is none of ours; leave one of them out"
    for volume in container.volumes:
        if not volume.startswith("/"):
            name = volume.partition(":")[0]
            yield f"the volume `{name}`: network volumes are not supported yet, folders of the instance are"
    if container.entrypoint is not None and (form.setup or isinstance(form, DevEnvironmentForm)):
        yield "an `entrypoint` leaves no shell to run `setup` or a dev environment: leave it out"
