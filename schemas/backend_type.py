"""What a type of backend is, said once: how it launches, what ends its machines, how they are reached. Pure.

`schemas.backend_types` has one value for each type. Nothing else in the program asks for a type's name to
learn one of these facts.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

from schemas.base import Seconds, Value

MINUTE = 60


class BackendType(Value, frozen=True, kw_only=True):
    """The traits of one type of backend. The contract suite asks of each backend what its type promises."""

    name: str
    """As `type:` in `backends`."""
    module: str = ""
    """Dotted path of the module with `connect`; "" for a type whose configuration is only parsed. Only
    `backends.registry` imports it."""
    form: str = ""
    """Dotted path and name of the pydantic model of its configuration (`package.module:Class`). Only
    `schemas.documents.backends` imports it."""
    extra: str = ""
    """The extra of the package that brings its libraries, "" where none is needed."""
    kind: Literal["machine", "server", "cloud", "cluster"] = "cloud"
    """`machine`: this one. `server`: declared, never bought. `cloud`, `cluster`: instances are made on request."""
    scope: Literal["host", "account", "region"] = "region"
    """What one listing covers. Places are named `backend/region` whatever the scope, except of scope `host`."""
    offers: Literal["none", "live", "catalog"] = "live"
    """Where its offers come from. `catalog`: shipped prices, so that a plan needs no request."""
    launch: Literal["token", "name", "once"] = "once"
    """What keeps a repeated request from making a second machine: a token, a name that is unique there, or
    nothing: such a request is sent one time and afterwards only looked for."""
    settle: Seconds = 10 * MINUTE
    """With `launch: once`, how long after its sending a machine may stay out of listings."""
    settle_apart: Seconds = 5 * MINUTE
    """How far apart two good listings must be that both lack a machine, before it counts as never made."""
    batch: int = 1
    """The most machines of one request."""
    launch_interval: Seconds = 0
    """Seconds between two launch requests of one account, across processes."""
    power_off: Literal["ends", "keeps_billing"] = "keeps_billing"
    """What powering a machine off from within does to its bill."""
    own_deadline: bool = False
    """Whether the backend itself ends a machine at a time that is fixed when it is made."""
    self_termination: Literal["lease", "cap", "none"] = "none"
    """The best that ends a machine when no apply comes any more: a `lease` that every apply renews, a `cap` that
    is fixed when it is made, or `none`."""
    boot: Literal["cloud-init", "container", "key"] = "key"
    """How a new machine gets our login and its first host key."""
    user_data_limit: int = 16 * 1024
    """The most bytes of user data (`boot: cloud-init`) or of a start command (`container`), before they are encoded."""
    power_off_program: str = (
        'if [ "$1" -le 3 ]; then systemctl poweroff || poweroff || shutdown -h now\n'
        "else systemctl poweroff --force --force || poweroff -f || echo o > /proc/sysrq-trigger; fi\n"
    )
    """POSIX sh that ends the machine from within, run as root by its self-termination timer. $1: which try it is."""
    containers: Literal["engine", "image-is-machine", "none"] = "engine"
    """`engine`: docker or podman may run there. `image-is-machine`: the instance is itself a container of the
    run's image. `none`: processes only."""
    base_image: str = ""
    """With `image-is-machine`, the image of an instance whose run and pool name none."""
    gang: Literal["native", "single", "none"] = "single"
    """Multi-node runs: by one request of the backend's own (`native`), one machine at a time, or not at all."""
    access: tuple[str, ...] = ()
    """Names of the programs by which its instances can be reached besides their address (`connect:`)."""
    parameters: tuple[str, ...] = ()
    """Sources of `secrets` whose values its accounts keep, such as `ssm`."""
    buckets: tuple[str, ...] = ()
    """Schemes of the buckets that its credentials open, such as `s3`."""
    ready_within: Seconds = 10 * MINUTE
    """Seconds from its making until an instance that has not answered counts as failed."""
    slow: tuple[tuple[str, Seconds], ...] = ()
    """The same for instance types that take longer: the first glob pattern that matches the type's name counts."""

    def ready_after(self, instance_type: str) -> Seconds:
        """Seconds from its making until an instance of that type which has not answered counts as failed."""
        return next((within for glob, within in self.slow if fnmatchcase(instance_type, glob)), self.ready_within)

    @property
    def fixed_runtime(self) -> str:
        """`Resources.runtime` of its instances, where the type decides it; "" where their hosts report it."""
        return {"engine": "", "none": "process", "image-is-machine": "image"}[self.containers]

    @property
    def available(self) -> bool:
        """Whether this version can use it; otherwise its configuration is only validated."""
        return bool(self.module)

    @property
    def bought(self) -> bool:
        """Whether instances are made on request and cost money or quota, rather than being there already."""
        return self.kind in ("cloud", "cluster")

    @property
    def regional(self) -> bool:
        """Whether its places are named by a region: `aws/us-east-1`."""
        return self.scope != "host"
