"""AWS: EC2 instances in one region of one account.

What tells ours from others' is a tag; every listing filters by it. RunInstances is all or none, by a token that lives
for a day; nothing else that is made has one, so it is made under a name and adopted.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from backends.aws import clients as aws_session
from backends.aws.errors import ahead_of, ask, pages
from backends.aws.hooks import CATALOG, access, bucket_session, configure, live_region, parameter, policy, probes  # noqa: F401 - for the registry
from backends.aws.images import image_for
from backends.aws.instance_status import described, with_checks
from backends.aws.leftovers import leftovers_in, remove_from
from backends.aws.network import Network, network_for
from backends.aws.own_address import own_address
from backends.aws.quotas import with_value
from backends.aws.regions import catalog_offers, regions  # noqa: F401 - `regions` is for the registry
from backends.aws.reservations import reserved_for
from backends.aws.run_instances import digest_of, inputs_of, parameters, unused_by
from backends.aws.security_groups import Groups, IngressGroup, ensure_groups, let_in_everywhere, said, unless
from backends.aws.tags import POOL, PROJECT, as_list, door_group, of_project, project_of
from backends.aws.terminate_instances import terminate
from backends.base import BackendDefaults, Setting
from backends.boot.cloud_init import render
from backends.errors import BackendError, CallFailed, NoCapacity, QuotaExceeded, TryLater
from schemas.base import place_of
from schemas.desired import BackendConfig
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Request, TerminateAnswer
from schemas.leftover import Leftover
from schemas.offer import Offer
from schemas.resources import Need, Where

PAGE = 1000  # the most that DescribeInstances gives at once
FILTERED = 200  # the most values of a filter
INSTANCE = re.compile(r"i-[0-9a-f]{8,17}")

Catalog = Callable[[BackendConfig, str], Sequence[Offer]]
"""What a region sells, by the catalog."""

_identities: dict[str, str] = {}
_unsent: set[str] = set()  # tokens of what this process prepared and has not sent yet
_asking = threading.Lock()


def connect(config: BackendConfig, region: str, setting: Setting) -> AwsBackend:
    """Nothing is asked yet."""
    return AwsBackend(
        config, region, setting, offers=lambda config, region: catalog_offers(config, region, now=setting.now())
    )


class AwsBackend(BackendDefaults):
    """See `backends.base.Backend`."""

    def __init__(self, config: BackendConfig, region: str, setting: Setting, *, offers: Catalog) -> None:
        self.place = place_of(config.name, region)
        self._config, self._region, self._setting = config, region, setting
        self._options, self._offers = config.options, offers
        self._lock = threading.Lock()
        self._known: dict[tuple[object, ...], Any] = {}
        self._notes: dict[str, None] = {}
        self._ahead: int | None = None

    def identity(self) -> str:
        """The account, asked once for all of its regions as long as the credentials stay the same."""
        key = aws_session.credentials_key(self._config)
        with _asking:
            if key not in _identities:
                answer = ask(self._client("sts"), "get_caller_identity")
                partition = str(answer.get("Arn", "")).split(":")[1:2] or ["aws"]
                _identities[key] = f"{partition[0]}:{answer['Account']}"
            return _identities[key]

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        """The catalog's, of this region."""
        return self._offers(self._config, self._region)

    def clock(self) -> int | None:
        return self._ahead

    def _time(self) -> int:
        """Unix time by EC2's clock, as far as its last listing told it."""
        return int(self._setting.now()) - (self._ahead or 0)

    def notes(self) -> Sequence[str]:
        """What a person should hear of what was done, each sentence once."""
        with self._lock:
            told, self._notes = list(self._notes), {}
        return told

    # ------------------------------------------------------------ launching

    def prepare(self, request: Request, offer: Offer) -> Request:
        ids = tuple(f"{request.launch}-{number}" for number in range(len(request.ids)))
        if request.ids != ids:
            raise BackendError(f"{request.launch}: instances must be numbered as EC2 numbers them")
        reserved = reserved_for(self._look, request, region=self._region)
        kind = self._kind(request.instance_type) if request.together else {}
        network = self._network(request, zone=request.zone or reserved.zone)
        inputs = inputs_of(
            request,
            account=self.identity(),
            options=self._options,
            image=image_for(self._look, self._parameter, offer, os_images=self._options.get("os_images") or {}),
            network=network,
            kind=kind,
            reserved=reserved,
        )
        if unused := unused_by(inputs, kind):
            self._note(unused)
        prepared = replace(request, zone=network.zone or request.zone, inputs=tuple(sorted(inputs.items())))
        _unsent.add(request.token)
        return replace(prepared, digest=digest_of(prepared, self._user_data(prepared)))

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        """EC2 makes all of a request or nothing: a refusal, which is raised, is one of every id."""
        user_data = self._user_data(request)
        if digest_of(request, user_data) != request.digest:
            raise TryLater(f"{request.launch} renders otherwise than when it was prepared: it is not sent again")
        first = request.token in _unsent
        _unsent.discard(request.token)
        try:
            made = self._sent(request, user_data)
        except (NoCapacity, TryLater):
            raise
        except QuotaExceeded as error:
            raise self._surely(request, self._quota(error, request), first=first) from None
        except BackendError as error:
            raise self._surely(request, error, first=first) from None
        found = described(made["Instances"], region=self._region)
        return {one.id: Made(external_id=one.external_id) for one in found}

    def _sent(self, request: Request, user_data: str) -> Any:
        inputs = dict(request.inputs)
        if self.identity() != inputs["account"]:
            raise TryLater(f"{request.launch} was prepared for account {inputs['account']}, this is {self.identity()}")
        groups = self._groups(request)
        if "reservation" not in inputs:  # else the group is the reservation's: it is there, and whoever's it is
            self._placement(inputs.get("placement", ""), request)
        asked = parameters(request, groups=groups, user_data=user_data)
        return ask(self._client("ec2", once=True), "run_instances", **asked)

    def _surely(self, request: Request, error: BackendError, *, first: bool) -> CallFailed:
        """A refusal that promises: an earlier sending of this request may have come through, and be refused now
        for want of a permission that it had then. What it made EC2 may not show yet: then nothing is promised."""
        token = [{"Name": "client-token", "Values": [request.token]}]
        try:
            found = list(self._pages(Filters=token, MaxResults=PAGE))
        except CallFailed:  # its keys ended, or may not look: nothing is known
            return TryLater(f"{error} (whether an earlier request made something cannot be told)")
        if found:
            return TryLater(f"{error} (made by an earlier request: {len(found)})")
        return error if first else TryLater(f"{error} (what an earlier request may have made is not to be seen yet)")

    def _quota(self, error: QuotaExceeded, request: Request) -> QuotaExceeded:
        quotas = self._client("service-quotas")
        return with_value(error, quotas, instance_type=request.instance_type, spot=request.spot)

    def _network(self, request: Request, *, zone: str) -> Network:
        return network_for(
            self._look,
            self._options,
            self._region,
            zone=zone,
            seed=request.near or request.launch,
            choose=request.together,
            avoid=() if request.zone else request.avoid,
            offered=lambda: self._zones_of(request.instance_type),
        )

    def _kind(self, instance_type: str) -> dict[str, Any]:
        return dict(self._look("describe_instance_types", InstanceTypes=[instance_type])["InstanceTypes"][0])

    def _zones_of(self, instance_type: str) -> list[str]:
        chosen = [{"Name": "instance-type", "Values": [instance_type]}]
        answer = self._look("describe_instance_type_offerings", LocationType="availability-zone", Filters=chosen)
        return sorted(one["Location"] for one in answer["InstanceTypeOfferings"])

    def _groups(self, request: Request) -> Groups:
        inputs = dict(request.inputs)
        door = self._door(direct=request.way.mode == "direct") if "own_door" in inputs else None
        return ensure_groups(
            self._client("ec2"),
            vpc=inputs["vpc"],
            project=request.project,
            pool=request.pool,
            door_name=inputs["door"],
            peers_name=inputs["peers"],
            door=door,
            now=self._time(),
        )

    def _door(self, *, direct: bool) -> IngressGroup:
        """Declared ranges are let in for every way; our own address for machines that we come to by theirs."""
        own, declared = said(self._options.get("ingress", "own"))
        if not (own and direct):
            return IngressGroup("", declared)
        address = self._once(("address",), lambda: own_address(os.environ))
        if not address:
            self._note(
                f"{self.place}: our own address is not known: nobody is let in to port 22; set DSTACK_ADDRESS, or "
                "`ingress: [RANGE]` of the backend"
            )
        return IngressGroup(address, declared)

    def _placement(self, name: str, request: Request) -> None:
        if not name:
            return
        ours = {"Name": name, PROJECT: request.project, POOL: request.pool}
        tags = {"ResourceType": "placement-group", "Tags": as_list(ours)}
        unless(
            "InvalidPlacementGroup.Duplicate",
            lambda: self._client("ec2").create_placement_group(
                GroupName=name, Strategy="cluster", TagSpecifications=[tags]
            ),
        )

    def _user_data(self, request: Request) -> str:
        return render(self._setting.boot(request.launch), request=request, kind=self._config.traits)

    # ------------------------------------------------------------ listing, ending

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        """Those with the project's tag, or just these; one that EC2 does not know (yet) is absent, which is no end.

        Of these, one that carries another project's tag is absent too, and one that carries none is not.
        """
        if ids is None:
            listed = self._seen(self._pages(Filters=of_project(self._setting.project), MaxResults=PAGE))
            return with_checks(listed, ec2=self._client("ec2"), place=self.place)
        known = [id for id in ids if INSTANCE.fullmatch(id)]
        found: list[Seen] = []
        for start in range(0, len(known), FILTERED):
            chosen = {"Name": "instance-id", "Values": known[start : start + FILTERED]}
            there = self._pages(Filters=[chosen], MaxResults=PAGE)  # a tag may have been taken off by hand
            found += self._seen(one for one in there if project_of(one) in ("", self._setting.project))
        return found

    def _pages(self, **parameters: Any) -> Iterator[dict[str, Any]]:
        for page in pages(self._client("ec2"), "describe_instances", **parameters):
            self._ahead = ahead_of(page, now=self._setting.now())
            for reservation in page.get("Reservations", ()):
                yield from reservation["Instances"]

    def _seen(self, instances: Iterable[dict[str, Any]]) -> list[Seen]:
        return described(instances, region=self._region, ec2=self._client("ec2"))

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        """An id that EC2 cannot have given is no machine of ours, and so gone."""
        known = [id for id in dict.fromkeys(ids) if INSTANCE.fullmatch(id)]
        return {id: Ending() for id in ids} | terminate(self._client("ec2"), known)

    def allow_our_address(self) -> bool:
        door = IngressGroup("") if self._options.get("security_group") else self._door(direct=True)
        return any(door) and let_in_everywhere(
            self._client("ec2"),
            door_group(self._setting.project),
            self._setting.project,
            door,
            now=self._time(),
        )

    def leftovers(self) -> Sequence[Leftover]:
        return leftovers_in(self._client("ec2"), project=self._setting.project, place=self.place)

    def remove(self, leftover: Leftover) -> None:
        remove_from(self._client("ec2"), leftover)

    # ------------------------------------------------------------ asking

    def _client(self, service: str, *, once: bool = False) -> Any:
        return aws_session.client(self._config, service, self._region, once=once)

    def _look(self, operation: str, **parameters: Any) -> Any:
        """Asked once for a tick."""
        return self._once((operation, repr(parameters)), lambda: ask(self._client("ec2"), operation, **parameters))

    def _parameter(self, operation: str, **parameters: Any) -> Any:
        return self._once((operation, repr(parameters)), lambda: ask(self._client("ssm"), operation, **parameters))

    def _once(self, key: tuple[object, ...], look: Callable[[], Any]) -> Any:
        """Looked up once for a tick; several launches wait for the same answer."""
        with self._lock:
            lock = self._known.setdefault(("lock", *key), threading.Lock())
        with lock:
            if key not in self._known:
                self._known[key] = look()
            return self._known[key]

    def _note(self, sentence: str) -> None:
        with self._lock:
            self._notes[sentence] = None
