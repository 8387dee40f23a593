"""Where no container runs inside an instance: what the instance is made of, and which runs it cannot take. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from schemas.backend_type import BackendType
from schemas.pool import Pool
from schemas.resources import Need

NOT_MADE_OF_IT = "`commands` alone in a plain image, since the instance is made of it"


def imageless(need: Need) -> Need:
    """The need without the image's name, on which no offer depends: runs of many images share one search."""
    return replace(need, image="") if need.image else need


def lacks_container(kind: BackendType, need: Need) -> str:
    """The stage of a search at which an offer of that type fails a run with an image; "" where it fits.

    A reference with `${{ }}` is resolved where a job starts and never stored, so that no instance is made of it. An
    instance that is made of the image runs the commands as a process: it has no entrypoint, user or volumes to give.
    """
    if not need.container or kind.containers == "engine":
        return ""
    if kind.containers == "none":
        return "container runtime"
    return "image" if need.engine or not need.image or "${{" in need.image else ""


def image_for(kind: BackendType, need: Need, pool: Pool) -> str:
    """What a new instance of that type is made of: the run's image, else the pool's, else the type's own."""
    if kind.containers != "image-is-machine":
        return ""
    own = "" if "${{" in pool.default_image else pool.default_image
    return need.image or own or kind.base_image
