"""A strict double of AWS, written on moto's server: what moto lacks and our promises rest on.

moto (its validations on) gives real request and response shapes, instance types, images, networks, tags. This adds,
and is open about it being ours, by AWS's own pages: tokens that hold (the same request, the same instances; other
parameters, `IdempotentParameterMismatch`), the `client-token` and `instance-lifecycle` filters, capacity and quota by
type, zone and purchase, spot requests and interruptions, listings that lag by a number of calls, machines that take
some calls to boot and to end, addresses of real hosts, throttling, answers that are cut after the deed, several
accounts by access key, public images by SSM parameter, placement groups, service quotas, a clock of its own, and a
count of every call by region and action. It refuses what EC2 refuses and moto lets through: a group of another
network, an image of another architecture, a root volume that is smaller than its image, user data above 16 KiB, tags
of more than AWS's length, a type where it is not offered; of interfaces and reservations see `aws_reservations`.

`served()` runs it as a process of its own; `Account` is a test's own account in it and turns its knobs.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import formatdate
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from tests.doubles.aws.aws_reservations import Wrong, check_interfaces, check_reservation, described

ROOT = Path(__file__).parents[3]
KEY = "AKIADOUBLE"
REGION = "eu-west-1"
SETTINGS = {
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "true",
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",  # the public images here are our own
}
IMAGES = {  # SSM parameter -> architecture, size of its root in GiB, root device
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id": ("x86_64", 8, "/dev/sda1"),
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id": ("arm64", 8, "/dev/sda1"),
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id": (
        "x86_64", 75, "/dev/sda1"),
    "/aws/service/deeplearning/ami/arm64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id": (
        "arm64", 75, "/dev/sda1"),
}  # fmt: skip

# ---------------------------------------------------------------- a test's side


@cache
def _client(url: str, number: str, service: str, region: str) -> Any:
    from boto3 import Session

    core = Session(aws_access_key_id=KEY + number, aws_secret_access_key="secret", region_name=region)
    core._session.register_component("data_loader", _loader())
    return core.client(service, endpoint_url=url)


@cache
def _loader() -> Any:
    """The descriptions of AWS's services, read once."""
    from botocore.loaders import create_loader

    return create_loader()


@dataclass(frozen=True)
class Account:
    """One account of the double. Every method is a word to the server, outside of AWS's own interfaces."""

    url: str
    number: str

    @property
    def environ(self) -> dict[str, str]:
        """What a client needs, and nothing of the machine's own. No retry of the SDK's: each call is one call."""
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": KEY + self.number, "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }  # fmt: skip

    def client(self, service: str = "ec2", region: str = REGION) -> Any:
        """A client of another make than the one under test, to see what there really is. Its calls are counted too."""
        return _client(self.url, self.number, service, region)

    def set(self, **knobs: Any) -> None:
        """`lag`, `boot`, `ending`: numbers of DescribeInstances calls. `spot`: type -> price of today.

        `hosts`: from now on a machine has no address but the one that `address` gives it. `ahead`: seconds by
        which AWS's clock is ahead of this machine's.
        `page`: the most reservations on a page of a listing, whatever was asked for, as EC2 is free to do. `crowd`: so
        many machines of project `testproject` are listed in each region, and none besides: too many for moto.
        """
        self._post("set", knobs)

    def room(self, kind: str, room: int, *, zone: str = "", spot: bool | None = None, code: str = "") -> None:
        """At most so many of that type live at once; `code` is EC2's of what is said beyond it."""
        self._post("room", {"kind": kind, "room": room, "zone": zone, "spot": spot, "code": code})

    def fault(
        self,
        action: str,
        code: str = "RequestLimitExceeded",
        *,
        times: int = 1,
        after: bool = False,
        cut: bool = False,
        status: int = 503,
        message: str = "slow down",
        region: str = "",
        page: str = "",
        skip: int = 0,
    ) -> None:
        """The next `times` calls after `skip` more fail: before the deed or `after` it; `cut` ends the connection
        without a word.

        `page` is what answers instead of EC2, as a proxy or a portal on the way does.
        With `code` "" a page of HTML is all that comes, as proxies send.
        """
        self._post("fault", {
            "action": action, "code": code, "times": times, "after": after, "cut": cut, "status": status,
            "message": message, "region": region, "page": page, "skip": skip,
        })  # fmt: skip

    def interrupt(self, instance: str, *, status: str = "instance-terminated-no-capacity", reason: bool = True) -> None:
        """EC2 takes the spot instance away; without `reason` only its spot request tells."""
        self._post("interrupt", {"instance": instance, "status": status, "reason": reason})

    def reserve(
        self, id: str = "cr-0123456789abcdef0", *, kind: str, zone: str, region: str = REGION, **said: str
    ) -> str:
        """A capacity reservation; `said` are fields of `aws_reservations`, `total` its machines (2)."""
        fields = {
            "id": id, "kind": kind, "zone": zone, "state": "active", "platform": "Linux/UNIX", "tenancy": "default",
            "type": "default", "total": "2", **said,
        }  # fmt: skip
        self._post("reserve", {"region": region, "fields": fields})
        return id

    def impair(self, instance: str, *, kind: str = "instance") -> None:
        """Its status check of that kind (instance, system) fails from now on; "" mends it."""
        self._post("impair", {"instance": instance, "kind": kind})

    def power_off(self, instance: str) -> None:
        """The machine shuts itself down: what that means is the launch's own setting."""
        self._post("power_off", {"instance": instance})

    def address(self, instance: str, address: str) -> None:
        """Whoever asks for the machine is sent there: both addresses of one with a public one, else the private one."""
        self._post("address", {"instance": instance, "address": address})

    def quota(self, code: str, value: float, name: str = "a quota") -> None:
        self._post("quota", {"code": code, "value": value, "name": name})

    def forget_tokens(self) -> None:
        """As after 24 hours."""
        self._post("forget_tokens", {})

    def calls(self) -> Counter[tuple[str, str]]:
        """(region, action) -> how often, since the last `clear`."""
        found: Counter[tuple[str, str]] = Counter()
        for region, action, number in self._post("calls", {})["calls"]:
            found[region, action] = number
        return found

    def clear(self) -> None:
        self._post("clear", {})

    def living(self, region: str = REGION) -> list[dict[str, Any]]:
        """What bills there now, by whatever tags; read past every lag and counted nowhere. `region` "": anywhere."""
        found: list[dict[str, Any]] = self._post("living", {"region": region})["instances"]
        return found

    def requests(self) -> list[dict[str, str]]:
        """The parameters of every RunInstances that made something."""
        found: list[dict[str, str]] = self._post("requests", {})["requests"]
        return found

    def _post(self, word: str, body: dict[str, Any]) -> Any:
        asked = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/double/{self.number}/{word}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read())


@dataclass
class AwsServer:
    """The double's process. An account's number is its own as long as nobody else says it."""

    port: int
    process: subprocess.Popen[bytes] = field(repr=False)
    made: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def account(self) -> Account:
        """A fresh one, with the default network that every account has."""
        self.made += 1
        return Account(self.url, f"{self.made:012d}")


@contextmanager
def served(folder: Path) -> Iterator[AwsServer]:
    """One, ready to answer; ended by its id."""
    from tests.doubles.buckets.buckets import outliving_nobody
    from tests.worlds.own_ports import free_port

    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*outliving_nobody(), sys.executable, "-m", "tests.doubles.aws.aws_double", "-p", str(port)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **SETTINGS},
        )
    try:
        server = AwsServer(port, process)
        _await(server, folder / "log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(server: AwsServer, log: Path) -> None:
    ends = time.monotonic() + 240
    while True:
        try:
            Account(server.url, "0" * 12).calls()
            return
        except OSError:
            if server.process.poll() is not None or time.monotonic() > ends:
                raise AssertionError(f"the double did not start:\n{log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.05)


# ---------------------------------------------------------------- the server's side


class Refused(Exception):
    """An answer of AWS's that is an error."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class Cut(ConnectionError):
    """The answer is never sent."""


class Intercepted(Exception):
    """Somebody else answers."""


@dataclass
class Room:
    kind: str
    room: int
    zone: str
    spot: bool | None
    code: str


@dataclass
class Fault:
    action: str
    code: str
    times: int
    after: bool
    cut: bool
    status: int
    message: str
    region: str
    page: str
    skip: int


@dataclass
class Asked:
    """One request, read. `parameters` are those of the query protocol, or the JSON body."""

    account: str
    region: str
    service: str
    action: str
    parameters: dict[str, Any]


@dataclass
class World:
    """One account: its knobs, and what we remember of it beside moto."""

    number: str
    lag: int = 0
    boot: int = 0
    ending: int = 0
    hosts: bool = False
    ahead: int = 0
    page: int = 0
    crowd: int = 0
    spot: dict[str, str] = field(default_factory=dict)
    rooms: list[Room] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    looks: Counter[str] = field(default_factory=Counter)
    tokens: dict[tuple[str, str], tuple[str, str, Any]] = field(default_factory=dict)
    impaired: dict[str, str] = field(default_factory=dict)
    spots: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[tuple[str, str], str] = field(default_factory=dict)
    groups: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    quotas: dict[str, tuple[float, str]] = field(default_factory=dict)
    reserved: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    made: list[dict[str, str]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def ec2(self, region: str) -> Any:
        from moto.ec2.models import ec2_backends

        return ec2_backends[self.number][region]

    def find(self, instance: str) -> Any:
        from moto.ec2.models import ec2_backends

        for backend in ec2_backends[self.number].values():
            for reservation in list(backend.reservations.values()):
                for one in reservation.instances:
                    if one.id == instance:
                        return one
        raise KeyError(instance)

    def fault(self, asked: Asked) -> Fault | None:
        for one in self.faults:
            if one.times > 0 and one.action == asked.action and one.region in ("", asked.region):
                if one.skip:
                    one.skip -= 1
                    continue
                one.times -= 1
                return one
        return None


CURRENT = threading.local()


class Double:
    """The WSGI application: ours before moto's."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app
        self.worlds: dict[str, World] = {}
        self.lock = threading.Lock()

    def world(self, number: str) -> World:
        with self.lock:
            return self.worlds.setdefault(number, World(number))

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/double/"):
            return self._word(environ, start)
        asked = read(environ)
        if asked is None:
            return self.app(environ, start)
        start = _dated(start, self.world(asked.account))
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = asked.account
        world = self.world(asked.account)
        with world.lock:
            world.calls[asked.region, asked.action] += 1
            fault = world.fault(asked)
        try:
            if fault is not None and not fault.after:
                raise _failure(fault)
            answer = self._answer(asked, world, environ, start if fault is None else _unsaid)
            if fault is not None:
                list(answer)
                raise _failure(fault)
            return answer
        except Refused as error:
            return _say_refused(asked, error, start)
        except Intercepted as page:
            start("200 OK", [("Content-Type", "text/html")])
            return [str(page).encode()]
        except Cut:
            environ["werkzeug.socket"].shutdown(2)
            raise

    def _answer(
        self, asked: Asked, world: World, environ: dict[str, Any], start: Callable[..., Any]
    ) -> Iterable[bytes]:
        own = OWN.get((asked.service, asked.action))
        said_by_us = own(world, asked) if own is not None else None
        if said_by_us is not None:
            return _say(said_by_us, asked, start)
        _shorten(asked, world, environ)
        CURRENT.asked, CURRENT.world, CURRENT.refused = asked, world, None
        said: list[Any] = []

        def hold(*status: Any, **_: Any) -> Callable[[bytes], None]:
            said.extend(status)
            return lambda _: None

        try:
            answer = list(self.app(environ, hold))
            if CURRENT.refused is not None:
                raise CURRENT.refused
            start(said[0], said[1])
            return answer
        finally:
            CURRENT.asked = CURRENT.world = None

    def _word(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        _, _, number, word = environ["PATH_INFO"].split("/")
        body = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"{}")
        world = self.world(number)
        with world.lock:
            answer = WORDS[word](world, **body)
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer or {}).encode()]


def read(environ: dict[str, Any]) -> Asked | None:
    """`None` for what is not signed with one of our keys: moto's own business."""
    import io

    found = re.search(r"Credential=([^/,]+)/\d+/([^/]*)/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    if found is None or not found[1].startswith(KEY):
        return None
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        parameters, action = json.loads(body or b"{}"), target.rpartition(".")[2]
    else:
        parameters = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        action = parameters.get("Action", f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
    return Asked(found[1].removeprefix(KEY), found[2], found[3], action, parameters)


def _dated(start: Callable[..., Any], world: World) -> Callable[..., Any]:
    """Answers with one date: the account's."""

    def begin(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() != "date"]
        date = formatdate(time.time() + world.ahead, usegmt=True)
        return start(status, [*kept, ("Date", date)], *more)

    return begin


def _shorten(asked: Asked, world: World, environ: dict[str, Any]) -> None:
    """A page of a listing is no longer than `page`."""
    import io
    from urllib.parse import urlencode

    if world.page and asked.action == "DescribeInstances" and "MaxResults" in asked.parameters:
        body = urlencode({**asked.parameters, "MaxResults": str(world.page)}).encode()
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))


def _unsaid(*_: Any) -> Callable[[bytes], None]:
    return lambda _: None


def _failure(fault: Fault) -> Exception:
    if fault.page:
        return Intercepted(fault.page)
    return Cut() if fault.cut else Refused(fault.code, fault.message, fault.status)


def _say_refused(asked: Asked, error: Refused, start: Callable[..., Any]) -> Iterable[bytes]:
    if not error.code:
        start(f"{error.status} Error", [("Content-Type", "text/html")])
        return [f"<!doctype html>\n<html lang=en>\n<h1>{escape(error.message)}</h1>\n".encode()]
    id = str(uuid.uuid4())
    if asked.service in ("ssm", "servicequotas", "tagging"):
        start(f"{error.status} Error", [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", id)])
        return [json.dumps({"__type": error.code, "message": error.message}).encode()]
    start(f"{error.status} Error", [("Content-Type", "text/xml")])
    inner = f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
    if asked.service == "ec2":
        return [f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>{id}</RequestID></Response>".encode()]
    return [
        f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error><RequestId>{id}</RequestId></ErrorResponse>".encode()
    ]


def _say(answer: Any, asked: Asked, start: Callable[..., Any]) -> Iterable[bytes]:
    if asked.service == "ec2":
        start("200 OK", [("Content-Type", "text/xml;charset=UTF-8")])
        name = f"{asked.action}Response"
        return [
            f'<{name} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>{uuid.uuid4()}</requestId>'
            f"{answer}</{name}>".encode()
        ]
    start("200 OK", [("Content-Type", "application/x-amz-json-1.1")])
    return [json.dumps(answer).encode()]


# ---------------------------------------------------------------- a test's words


def _set(world: World, **knobs: Any) -> None:
    for name, value in knobs.items():
        assert name in ("lag", "boot", "ending", "spot", "hosts", "ahead", "page", "crowd"), name
        setattr(world, name, value)


def _room(world: World, **said: Any) -> None:
    world.rooms = [one for one in world.rooms if (one.kind, one.zone, one.spot) != (
        said["kind"], said["zone"], said["spot"])]  # fmt: skip
    world.rooms.append(Room(**said))


def _interrupt(world: World, *, instance: str, status: str, reason: bool) -> None:
    one = world.find(instance)
    _end(one, "Server.SpotInstanceTermination" if reason else "", "Server.SpotInstanceTermination: Spot interruption")
    request = world.spots[one.spot_instance_request_id]
    request.update(state="closed", code=status)


def _power_off(world: World, *, instance: str) -> None:
    one = world.find(instance)
    if one.instance_initiated_shutdown_behavior == "terminate":
        _end(one, "Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
    else:
        one.stop()


def _end(one: Any, code: str, message: str) -> None:
    one.terminate()
    one._state.name, one._state.code = "terminated", 48
    one.state_reason.code, one.state_reason.message = code, message
    one.double_ends = 0


def _calls(world: World) -> dict[str, Any]:
    return {"calls": [(region, action, number) for (region, action), number in world.calls.items()]}


def _address(world: World, *, instance: str, address: str) -> None:
    one = world.find(instance)
    nic = one.nics[0]
    nic.private_ip_address = address
    if one.double_public:
        nic.public_ip = address


def _living(world: World, *, region: str) -> dict[str, Any]:
    from moto.ec2.models import ec2_backends

    found = [
        {
            "id": one.id, "region": where, "type": one.instance_type, "state": one._state.name,
            "spot": one.lifecycle == "spot", "zone": one.placement.zone,
            "tags": {tag["key"]: tag["value"] for tag in one.get_tags()},
            "groups": sorted({group.name for nic in one.nics.values() for group in nic.group_set}),
        }
        for where in ([region] if region else list(ec2_backends[world.number]))
        for reservation in list(world.ec2(where).reservations.values())
        for one in reservation.instances
        if one._state.name not in ("terminated", "shutting-down")
    ]  # fmt: skip
    return {"instances": found}


WORDS: dict[str, Callable[..., Any]] = {
    "set": _set,
    "room": _room,
    "fault": lambda world, **said: world.faults.append(Fault(**said)),
    "interrupt": _interrupt,
    "power_off": _power_off,
    "impair": lambda world, instance, kind: world.impaired.update({instance: kind}),
    "address": _address,
    "reserve": lambda world, region, fields: world.reserved.setdefault(region, {}).update({fields["id"]: fields}),
    "quota": lambda world, code, value, name: world.quotas.__setitem__(code, (value, name)),
    "forget_tokens": lambda world: world.tokens.clear(),
    "calls": _calls,
    "clear": lambda world: world.calls.clear(),
    "living": _living,
    "requests": lambda world: {"requests": world.made},
}


# ---------------------------------------------------------------- what moto lacks altogether


def _get_parameters(world: World, asked: Asked) -> Any:
    names = asked.parameters["Names"]
    found = {name: world_image(world, asked.region, name) for name in names if name in IMAGES}
    return {
        "Parameters": [_parameter(name, value) for name, value in found.items()],
        "InvalidParameters": [name for name in names if name not in found],
    }


def _get_parameter(world: World, asked: Asked) -> Any:
    name = asked.parameters["Name"]
    if name not in IMAGES:
        return None  # one that a test put: moto's
    return {"Parameter": _parameter(name, world_image(world, asked.region, name))}


def _parameter(name: str, value: str) -> dict[str, Any]:
    return {"Name": name, "Type": "String", "Value": value, "Version": 1, "DataType": "aws:ec2:image"}


def world_image(world: World, region: str, name: str) -> str:
    """The public image of that parameter; published when first asked for."""
    with world.lock:
        known = world.images.get((region, name))
        if known is None:
            architecture, size, root = IMAGES[name]
            image = world.ec2(region).register_image(name=f"{hashlib.sha256(name.encode()).hexdigest()[:12]}")
            image.architecture, image.root_device_name = architecture, root
            image.double_size = size
            image.ebs_snapshot.volume.size = size
            known = world.images[region, name] = image.id
        return known


def _create_placement_group(world: World, asked: Asked) -> str:
    name = asked.parameters["GroupName"]
    if (asked.region, name) in world.groups:
        raise Refused("InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists.")
    tags = tags_of(asked.parameters, "placement-group")
    group = {"name": name, "id": f"pg-{uuid.uuid4().hex[:17]}", "tags": tags, "strategy": asked.parameters["Strategy"]}
    world.groups[asked.region, name] = group
    return f"<placementGroup>{_group_xml(group)}</placementGroup>"


def _describe_placement_groups(world: World, asked: Asked) -> str:
    wanted = filters_of(asked.parameters)
    names = numbered(asked.parameters, "GroupName")
    found = [
        group for (region, name), group in world.groups.items()
        if region == asked.region and (not names or name in names) and passes(group["tags"], wanted)
    ]  # fmt: skip
    if missing := set(names) - {group["name"] for group in found}:
        raise Refused("InvalidPlacementGroup.Unknown", f"The Placement Group '{missing.pop()}' is unknown.")
    return f"<placementGroupSet>{''.join(f'<item>{_group_xml(one)}</item>' for one in found)}</placementGroupSet>"


def _delete_placement_group(world: World, asked: Asked) -> str:
    name = asked.parameters["GroupName"]
    if (asked.region, name) not in world.groups:
        raise Refused("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
    backend = world.ec2(asked.region)
    using = [
        one for reservation in backend.reservations.values() for one in reservation.instances
        if getattr(one, "double_group", "") == name and one._state.name != "terminated"
    ]  # fmt: skip
    if using:
        raise Refused("InvalidPlacementGroup.InUse", f"The placement group {name} is in use and may not be deleted.")
    del world.groups[asked.region, name]
    return "<return>true</return>"


def _group_xml(group: dict[str, Any]) -> str:
    tags = "".join(f"<item><key>{escape(k)}</key><value>{escape(v)}</value></item>" for k, v in group["tags"].items())
    return (
        f"<groupName>{escape(group['name'])}</groupName><groupId>{group['id']}</groupId><state>available</state>"
        f"<strategy>{group['strategy']}</strategy><tagSet>{tags}</tagSet>"
    )


def _describe_spot(world: World, asked: Asked) -> str:
    ids, wanted = numbered(asked.parameters, "SpotInstanceRequestId"), filters_of(asked.parameters)
    found = [
        one for id, one in world.spots.items()
        if one["region"] == asked.region and (not ids or id in ids)
        and ("instance-id" not in wanted or one["instance"] in wanted["instance-id"])
        and ("state" not in wanted or one["state"] in wanted["state"])
        and passes(one["tags"], wanted)
    ]  # fmt: skip
    items = "".join(
        f"<item><spotInstanceRequestId>{one['id']}</spotInstanceRequestId><state>{one['state']}</state><status>"
        f"<code>{one['code']}</code><message>{one['code']}</message></status><instanceId>{one['instance']}</instanceId>"
        f"<type>one-time</type></item>"
        for one in found
    )
    return f"<spotInstanceRequestSet>{items}</spotInstanceRequestSet>"


def _cancel_spot(world: World, asked: Asked) -> str:
    """What was fulfilled stays so for its instance; moto knows none of ours."""
    ids = numbered(asked.parameters, "SpotInstanceRequestId")
    for id in ids:
        if id not in world.spots:
            raise Refused("InvalidSpotInstanceRequestID.NotFound", f"The spot request '{id}' does not exist")
        world.spots[id]["state"] = "cancelled"
    items = "".join(
        f"<item><spotInstanceRequestId>{id}</spotInstanceRequestId><state>cancelled</state></item>" for id in ids
    )
    return f"<spotInstanceRequestSet>{items}</spotInstanceRequestSet>"


def _delete_key(world: World, asked: Asked) -> str:
    """By its id, which moto passes by."""
    backend, id = world.ec2(asked.region), asked.parameters.get("KeyPairId")
    names = [one.key_name for one in backend.key_pairs.values() if one.id == id]
    backend.delete_key_pair(names[0] if names else asked.parameters.get("KeyName", ""))
    return "<return>true</return>"


def _get_quota(world: World, asked: Asked) -> Any:
    code = asked.parameters["QuotaCode"]
    if code not in world.quotas:
        raise Refused("NoSuchResourceException", "the quota is not set in this account")
    value, name = world.quotas[code]
    return {"Quota": {"QuotaCode": code, "QuotaName": name, "Value": value, "ServiceCode": "ec2"}}


def _get_default_quota(world: World, asked: Asked) -> Any:
    """AWS's own value, for accounts that have none of theirs."""
    return {"Quota": {"QuotaCode": asked.parameters["QuotaCode"], "QuotaName": "a default", "Value": 5.0}}


def _describe_reservations(world: World, asked: Asked) -> str:
    """moto has none; neither does a fresh account."""
    try:
        return described(world.reserved.get(asked.region, {}), numbered(asked.parameters, "CapacityReservationId"))
    except Wrong as error:
        raise Refused(error.code, error.message) from None


def _describe_crowd(world: World, asked: Asked) -> str | None:
    """Pages as EC2 has them: its own tokens, for the very same question alone; the last but one page is empty."""
    if not world.crowd:
        return None
    said = {key: value for key, value in asked.parameters.items() if key != "NextToken"}
    most = int(said.get("MaxResults", "1000"))
    if not 5 <= most <= 1000 or "InstanceId.1" in said:
        raise Refused("InvalidParameterValue", f"Value ( {most} ) for parameter maxResults is invalid")
    question = hashlib.sha256(json.dumps(sorted(said.items())).encode()).hexdigest()[:12]
    token = asked.parameters.get("NextToken", f"{question}-0-")
    found = re.fullmatch(rf"{question}-(\d+)-(empty)?", token)
    if found is None:
        raise Refused("InvalidNextToken", "The token is of another question")
    start = int(found[1])
    end = start if found[2] else min(start + most, world.crowd)
    items = "".join(_one_of_crowd(asked.region, number) for number in range(start, end))
    last = not found[2] and end + most >= world.crowd
    more = "" if end == world.crowd else f"{question}-{end}-{'empty' if last else ''}"
    after = f"<nextToken>{more}</nextToken>" if more else ""
    return f"<reservationSet>{items}</reservationSet>{after}"


def _one_of_crowd(region: str, number: int) -> str:
    launch, index = divmod(number, 50)
    tags = {"dstack-project": "testproject", "dstack-launch": f"c{launch}", "dstack-lineage": "lineage1"}
    tagged = "".join(f"<item><key>{key}</key><value>{value}</value></item>" for key, value in tags.items())
    return (
        f"<item><instancesSet><item><instanceId>i-{number:017x}</instanceId><instanceState><name>running</name>"
        f"</instanceState><amiLaunchIndex>{index}</amiLaunchIndex><instanceType>m5.large</instanceType><placement>"
        f"<availabilityZone>{region}a</availabilityZone></placement><tagSet>{tagged}</tagSet></item></instancesSet></item>"
    )


def _describe_types(world: World, asked: Asked) -> Any:
    """A region knows its own types alone; of these moto tells."""
    unknown = [kind for kind in numbered(asked.parameters, "InstanceType") if not offered(asked.region, kind)]
    if unknown:
        raise Refused("InvalidInstanceType", f"The following supplied instance types do not exist: {unknown}")
    return None


def _describe_status(world: World, asked: Asked) -> str:
    """Of running machines. Ids that are not known are an error, as EC2 has it; more than a hundred, too."""
    ids, wanted = numbered(asked.parameters, "InstanceId"), filters_of(asked.parameters)
    if len(ids) > 100:
        raise Refused("InvalidParameterValue", "The maximum number of instance IDs is 100")
    living = {one.id: one.state for each in world.ec2(asked.region).reservations.values() for one in each.instances}
    if missing := [id for id in ids if id not in living]:
        raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{missing[0]}' does not exist")
    items = ""
    for id, state in living.items():
        kind = world.impaired.get(id, "")
        status = {name: "impaired" if name == kind else "ok" for name in ("instance", "system")}
        passed = status["instance"] in wanted.get("instance-status.status", [status["instance"]])
        if state == "running" and passed and (not ids or id in ids):
            items += f"<item><instanceId>{id}</instanceId>"
            items += "".join(
                f"<{name}Status><status>{said}</status><details><item><name>reachability</name>"
                f"<status>{'failed' if said == 'impaired' else 'passed'}</status>"
                f"{'<impairedSince>2026-11-30T03:10:00.000Z</impairedSince>' if said == 'impaired' else ''}"
                f"</item></details></{name}Status>"
                for name, said in status.items()
            )
            items += "</item>"
    return f"<instanceStatusSet>{items}</instanceStatusSet>"


def offered(region: str, kind: str) -> set[str]:
    """The zones that have it, by moto's copy of EC2's offerings."""
    from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS

    there = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
    return {one["Location"] for one in there if one["InstanceType"] == kind}


OWN: dict[tuple[str, str], Callable[[World, Asked], Any]] = {
    ("ssm", "GetParameters"): _get_parameters,
    ("ssm", "GetParameter"): _get_parameter,
    ("ec2", "DescribeInstances"): _describe_crowd,
    ("ec2", "DescribeInstanceTypes"): _describe_types,
    ("ec2", "DescribeInstanceStatus"): _describe_status,
    ("ec2", "CreatePlacementGroup"): _create_placement_group,
    ("ec2", "DescribePlacementGroups"): _describe_placement_groups,
    ("ec2", "DeletePlacementGroup"): _delete_placement_group,
    ("ec2", "DescribeSpotInstanceRequests"): _describe_spot,
    ("ec2", "CancelSpotInstanceRequests"): _cancel_spot,
    ("ec2", "DeleteKeyPair"): _delete_key,
    ("servicequotas", "GetServiceQuota"): _get_quota,
    ("servicequotas", "GetAWSDefaultServiceQuota"): _get_default_quota,
    ("ec2", "DescribeCapacityReservations"): _describe_reservations,
}


def numbered(parameters: dict[str, str], name: str) -> list[str]:
    return [value for key, value in parameters.items() if re.fullmatch(rf"{name}\.\d+", key)]


def filters_of(parameters: dict[str, str]) -> dict[str, list[str]]:
    names = {key.split(".")[1]: value for key, value in parameters.items() if re.fullmatch(r"Filter\.\d+\.Name", key)}
    return {
        name: [value for key, value in parameters.items() if re.fullmatch(rf"Filter\.{number}\.Value\.\d+", key)]
        for number, name in names.items()
    }


def passes(tags: dict[str, str], wanted: dict[str, list[str]]) -> bool:
    return all(
        tags.get(name.removeprefix("tag:")) in values for name, values in wanted.items() if name.startswith("tag:")
    )


def tags_of(parameters: dict[str, str], resource: str) -> dict[str, str]:
    """Of `TagSpecification`s, as one call carries them."""
    found: dict[str, str] = {}
    for key, value in parameters.items():
        if re.fullmatch(r"TagSpecification\.\d+\.ResourceType", key) and value == resource:
            start = key.removesuffix("ResourceType")
            for name, tag in parameters.items():
                if name.startswith(f"{start}Tag.") and name.endswith(".Key"):
                    found[tag] = parameters.get(name.removesuffix("Key") + "Value", "")
    return found


# ---------------------------------------------------------------- instances, on moto's


def _run_instances(original: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Any, image_id: str, count: int, user_data: Any, names: list[str], **named: Any) -> Any:
        world, asked = CURRENT.world, CURRENT.asked
        if world is None:
            return original(self, image_id, count, user_data, names, **named)
        with world.lock:
            token = asked.parameters.get("ClientToken", "")
            print_ = json.dumps(sorted((k, v) for k, v in asked.parameters.items() if k != "DryRun"))
            if (asked.region, token) in world.tokens:
                known, _, reservation = world.tokens[asked.region, token]
                if known != print_:
                    raise _ec2("IdempotentParameterMismatch", "the token was used with other parameters")
                return reservation
            zone = _strict(world, asked, self, image_id, named)
            taken = _reserved(world, asked, self, zone)
            number = _admitted(world, asked, self, zone)
            made = original(self, image_id, number, user_data, names, **named)
            _dressed(world, asked, made)
            for one in made.instances:
                one.double_reservation = taken
            world.tokens[asked.region, token] = (print_, token, made)
            world.made.append(asked.parameters)
            return made

    return run


def _strict(world: World, asked: Asked, backend: Any, image_id: str, named: dict[str, Any]) -> str:
    """What EC2 refuses and moto does not. The zone that it would go to."""
    said = asked.parameters
    image = backend.amis[image_id]
    known = backend.describe_instance_types([named["instance_type"]])[0]
    offered = [*known.get("ProcessorInfo", {}).get("SupportedArchitectures", ())]
    if image.architecture not in offered:
        raise _ec2(
            "InvalidParameterValue",
            f"The architecture '{image.architecture}' of the specified instance type does not match",
        )
    size = next((v for k, v in said.items() if k.endswith(".Ebs.VolumeSize")), None)
    if size is not None and int(size) < getattr(image, "double_size", 1):
        raise _ec2("InvalidBlockDeviceMapping", f"Volume of size {size}GB is smaller than snapshot")
    if len(base64.b64decode(said.get("UserData", ""), validate=True)) > 16384:
        raise _ec2("InvalidParameterValue", "User data is limited to 16384 bytes")
    for key, value in said.items():
        if key.startswith("TagSpecification.") and len(value) > (128 if key.endswith(".Key") else 256):
            raise _ec2("InvalidParameterValue", f"{key} is too long")
        if re.fullmatch(r"TagSpecification\.\d+\.Tag\.\d+\.Key", key) and value.lower().startswith("aws:"):
            raise _ec2("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
    try:
        check_interfaces(said, known.get("NetworkInfo", {}))
    except Wrong as error:
        raise _ec2(error.code, error.message) from None
    strategies = known.get("PlacementGroupInfo", {}).get("SupportedStrategies", ())
    if said.get("Placement.GroupName") and "cluster" not in strategies:
        raise _ec2("InvalidParameterCombination", f"{named['instance_type']} goes in no cluster placement group")
    return _zone(world, asked, backend, named)


def _reserved(world: World, asked: Asked, backend: Any, zone: str) -> str:
    used = Counter(
        getattr(one, "double_reservation", "")
        for reservation in backend.reservations.values()
        for one in reservation.instances
        if one._state.name not in ("terminated", "shutting-down")
    )
    try:
        return check_reservation(asked.parameters, world.reserved.get(asked.region, {}), used=used, zone=zone)
    except Wrong as error:
        raise _ec2(error.code, error.message) from None


def _zone(world: World, asked: Asked, backend: Any, named: dict[str, Any]) -> str:
    said = asked.parameters
    subnet_id = said.get("SubnetId") or said.get("NetworkInterface.1.SubnetId")
    zone = said.get("Placement.AvailabilityZone", "")
    if subnet_id:
        subnet = backend.get_subnet(subnet_id)
        groups = [v for k, v in said.items() if re.search(r"SecurityGroupId\.\d+$", k)]
        for group in groups:
            if backend.get_security_group_from_id(group).vpc_id != subnet.vpc_id:
                raise _ec2(
                    "InvalidParameter", f"Security group {group} and subnet {subnet_id} belong to different networks."
                )
        if zone not in ("", subnet.availability_zone):
            raise _ec2("InvalidParameterValue", "The subnet is of another zone than the placement")
        zone = subnet.availability_zone
    group = said.get("Placement.GroupName", "")
    if group and (asked.region, group) not in world.groups:
        raise _ec2("InvalidPlacementGroup.Unknown", f"The Placement Group '{group}' is unknown.")
    zones = offered(asked.region, said["InstanceType"])
    if not zones or zone not in ("", *zones):
        raise _ec2("Unsupported", f"Your requested instance type ({said['InstanceType']}) is not supported in your "
                   "requested Availability Zone.")  # fmt: skip
    return str(zone)


def _admitted(world: World, asked: Asked, backend: Any, zone: str) -> int:
    """How many are made: as many as there is room for up to MaxCount, none below MinCount."""
    said = asked.parameters
    kind, spot = said["InstanceType"], said.get("InstanceMarketOptions.MarketType") == "spot"
    least, most = int(said["MinCount"]), int(said["MaxCount"])
    bid = said.get("InstanceMarketOptions.SpotOptions.MaxPrice")
    if spot and bid is not None and float(bid) < float(world.spot.get(kind, 0)):
        raise _ec2(
            "SpotMaxPriceTooLow",
            f"Your Spot request price of {bid} is lower than the minimum required Spot request fulfillment price "
            f"of {world.spot[kind]}.",
        )
    living = [
        one for reservation in backend.reservations.values() for one in reservation.instances
        if one.instance_type == kind and one._state.name not in ("terminated", "shutting-down")
    ]  # fmt: skip
    number = most
    for one in world.rooms:
        if one.kind != kind or one.zone not in ("", zone) or one.spot not in (None, spot):
            continue
        there = sum(
            one.zone in ("", each.placement.zone) and one.spot in (None, each.lifecycle == "spot") for each in living
        )
        number = min(number, one.room - there)
        if number < least:
            code = one.code or "InsufficientInstanceCapacity"
            error = _ec2(code, CAPACITY_WORDS.get(code, f"We currently do not have sufficient {kind} capacity."))
            if code == "InsufficientInstanceCapacity":  # EC2 says it as a failure of the server
                CURRENT.refused = Refused(code, error.message, 500)
            raise error
    return number


CAPACITY_WORDS = {
    "VcpuLimitExceeded": "You have requested more vCPU capacity than your current vCPU limit of 32 allows for the "
    "instance bucket that the specified instance type belongs to.",
    "MaxSpotInstanceCountExceeded": "Max spot instance count exceeded",
}


def _ec2(code: str, message: str) -> Any:
    from moto.ec2.exceptions import EC2ClientError

    return EC2ClientError(code, message)


def _dressed(world: World, asked: Asked, reservation: Any) -> None:
    """What moto leaves out of an instance, its interfaces and its spot request."""
    said = asked.parameters
    spot = said.get("InstanceMarketOptions.MarketType") == "spot"
    for one in reservation.instances:
        one.double_born, one.double_ends = world.looks[asked.region], None
        one.double_group = one.placement.group_name = said.get("Placement.GroupName", "")
        one.launch_time += timedelta(seconds=world.ahead)
        one.double_public = bool(one.nics[0].public_ip)
        if world.hosts:
            one.nics[0].public_ip, one.nics[0].private_ip_address = None, ""
        for nic in one.nics.values():
            nic.add_tags(tags_of(said, "network-interface"))
        if spot:
            id = f"sir-{uuid.uuid4().hex[:8]}"
            one.lifecycle = one.instance_lifecycle = "spot"
            one.spot_instance_request_id = id
            world.spots[id] = {
                "id": id, "instance": one.id, "state": "active", "code": "fulfilled", "region": asked.region,
                "tags": tags_of(said, "spot-instances-request"),
            }  # fmt: skip


def _terminate_instances(original: Callable[..., Any]) -> Callable[..., Any]:
    def terminate(self: Any, ids: list[str]) -> Any:
        world, asked = CURRENT.world, CURRENT.asked
        if world is None:
            return original(self, ids)
        with world.lock:
            for id in ids:
                if not re.fullmatch(r"i-[0-9a-f]{8,17}", id):
                    raise _ec2("InvalidInstanceID.Malformed", f'Invalid id: "{id}"')
            for one in self.get_multi_instances_by_id(ids):  # one of them, and none ends
                if str(one.disable_api_termination).lower() == "true" and one._state.name != "terminated":
                    raise _ec2(
                        "OperationNotPermitted",
                        f"The instance '{one.id}' may not be terminated. Modify its 'disableApiTermination' instance "
                        "attribute and try again.",
                    )
            fresh = [one.id for one in self.get_multi_instances_by_id(ids) if one._state.name != "terminated"
                     and getattr(one, "double_ends", None) is None]  # fmt: skip
            for one in self.get_multi_instances_by_id(fresh) if fresh else ():
                one.terminate()
                one._reason = time.strftime(
                    "User initiated (%Y-%m-%d %H:%M:%S GMT)", time.gmtime(time.time() + world.ahead)
                )
                one.state_reason.code = "Client.UserInitiatedShutdown"
                one.state_reason.message = "Client.UserInitiatedShutdown: User initiated shutdown"
                one._state.name, one._state.code = "shutting-down", 32
                one.double_ends = world.looks[asked.region] + world.ending
                request = world.spots.get(getattr(one, "spot_instance_request_id", None) or "")
                if request:
                    request.update(state="closed", code="instance-terminated-by-user")
            return [(one, {"Code": 16, "Name": "running"}) for one in self.get_multi_instances_by_id(ids)]

    return terminate


def _described(original: Callable[..., Any], *, by_id: bool) -> Callable[..., Any]:
    """As the world was `lag` looks ago: what is younger is not known yet, not even by its id."""

    def describe(self: Any, *ids: Any, filters: Any = None) -> Any:
        world, asked = CURRENT.world, CURRENT.asked
        if world is None or asked.action != "DescribeInstances":
            return original(self, *ids, filters=filters)
        with world.lock:
            world.looks[asked.region] += 1
            now = world.looks[asked.region]
            for reservation in self.reservations.values():
                for one in reservation.instances:
                    _as_of(one, now, boot=world.boot)
            found = original(self, *ids, filters=filters)
            for reservation in found:
                reservation.instances = [
                    one for one in reservation.instances if getattr(one, "double_born", 0) + world.lag < now
                ]
            seen = {one.id for reservation in found for one in reservation.instances}
            if by_id and (missing := set(ids[0]) - seen):
                raise _ec2("InvalidInstanceID.NotFound", f"The instance ID '{sorted(missing)[0]}' does not exist")
            return [reservation for reservation in found if reservation.instances]

    return describe


def _as_of(one: Any, now: int, *, boot: int) -> None:
    ends = getattr(one, "double_ends", None)
    if ends is not None:
        over = now > ends
        one._state.name, one._state.code = ("terminated", 48) if over else ("shutting-down", 32)
    elif one._state.name in ("pending", "running"):
        up = now > getattr(one, "double_born", 0) + boot
        one._state.name, one._state.code = ("running", 16) if up else ("pending", 0)


def _loopback() -> str:
    return ".".join(["127", *(str(random.randrange(1, 255)) for _ in range(3))])  # noqa: S311


def installed() -> None:
    """Our rules in moto's place."""
    from moto.ec2 import utils
    from moto.ec2.models import elastic_network_interfaces
    from moto.ec2.models.instances import InstanceBackend

    # Moto's are somebody's: who asks for a machine's host would knock there, and wait for an answer that may not come.
    interfaces: Any = elastic_network_interfaces
    interfaces.random_public_ip = _loopback
    utils.filter_dict_attribute_mapping |= {"client-token": "client_token", "instance-lifecycle": "lifecycle"}
    backend: Any = InstanceBackend
    backend.run_instances = _run_instances(backend.run_instances)
    backend.terminate_instances = _terminate_instances(backend.terminate_instances)
    backend.describe_instances = _described(backend.describe_instances, by_id=False)
    backend.get_reservations_by_instance_ids = _described(backend.get_reservations_by_instance_ids, by_id=True)


def main() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import run_simple

    class Handler(MotoRequestHandler):
        """Without the date that every answer of Python's server has: the application's is meant."""

        def send_response(self, code: int, message: str | None = None) -> None:
            self.send_response_only(code, message)

    parser = argparse.ArgumentParser()
    parser.add_argument("-p", type=int, required=True)
    port = parser.parse_args().p
    os.environ.setdefault("MOTO_PORT", str(port))
    installed()
    app = Double(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", port, app, threaded=True, request_handler=Handler)


if __name__ == "__main__":
    main()
