"""`endpoint` of a backend: where every request goes, and where none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends import registry
from backends.aws.clients import client
from backends.catalog.offers import Layers
from backends.errors import BackendError
from reconciler.config.endpoints import applied_endpoints, new_endpoints
from reconciler.config.load import Documents, load
from reconciler.state.requests import carry
from schemas.catalog import Catalog
from schemas.desired import BackendConfig, Desired
from schemas.endpoint import withheld
from schemas.state import VERSION, State

HERE = "http://127.0.0.1:9"
ELSEWHERE = "https://ec2.example.com"
ROLE = {"role_arn": "arn:aws:iam::1:role/r"}
SERVICES = ["ec2", "sts", "ssm", "service-quotas", "s3"]
NO_CATALOG = Catalog(version=1, name="none", provider="aws", priced_at=0, types=(), regions={})
WAITS = "endpoint is not applied yet: run `dstack apply`"


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAAAAAAAAAAAAAAAAA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)


def elsewhere(confirmed: str = "", **options: object) -> BackendConfig:
    options = {"endpoint": ELSEWHERE, **options}
    return BackendConfig(name="try", type="aws", options=options, confirmed_endpoint=confirmed)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "config", [BackendConfig(name="try", type="aws", options={"endpoint": HERE}), elsewhere(ELSEWHERE)]
)
def test_every_service_is_asked_there(service: str, config: BackendConfig) -> None:
    assert client(config, service, "eu-west-1").meta.endpoint_url == config.endpoint


def test_an_address_that_is_signed_for_a_bucket_leads_there() -> None:
    asked = {"Bucket": "team", "Key": "a"}
    assert (
        client(elsewhere(ELSEWHERE), "s3", "eu-west-1")
        .generate_presigned_url("get_object", asked)
        .startswith(f"{ELSEWHERE}/team/a?")
    )


@pytest.mark.parametrize("options", [{}, {"creds": ROLE}])
@pytest.mark.parametrize("confirmed", ["", "https://other.example.com", f"{ELSEWHERE}:8443"])
@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_sent_to_an_address_that_is_not_confirmed(
    options: dict[str, object], confirmed: str, service: str
) -> None:
    with pytest.raises(BackendError, match=r"nothing is sent to https://ec2\.example\.com: endpoint is not"):
        client(elsewhere(confirmed, **options), service, "eu-west-1")


def test_no_type_of_backend_is_asked_at_an_address_that_is_not_confirmed() -> None:
    config = BackendConfig(name="try", type="aws", options={"endpoint": ELSEWHERE})
    asks = (
        lambda: registry.connect(config, "eu-west-1", None),  # type: ignore[arg-type]
        lambda: registry.regions(config),
        lambda: registry.parameter("ssm", "/a", [config]),
        lambda: registry.live_region(config, "eu-west-1", Layers(shipped=NO_CATALOG), now=0),
        lambda: [probe.look() for probe in registry.probes(config, (), None, buckets=())],  # type: ignore[arg-type]
    )
    for ask in asks:
        with pytest.raises(BackendError, match="endpoint is not applied yet"):
            ask()


@pytest.mark.parametrize("given", ["", HERE, "https://localhost:4566", "http://[::1]:1"])
def test_the_vendors_own_address_and_this_machine_need_no_confirmation(given: str) -> None:
    assert withheld(given, confirmed="") == ""


TEXT = """\
project: {name: demo, id: demo12345678}
backends:
- type: aws
  endpoint: https://ec2.example.com
pools:
- name: gpu
  backends: [aws]
"""


def documents(root: Path, text: str = TEXT, **endpoints: str) -> Documents:
    (root / ".dstack").mkdir(exist_ok=True)
    (root / ".dstack" / "pools.yml").write_text(text)
    return load(root, home=root, endpoints=endpoints)


def test_a_backend_is_used_only_with_the_endpoint_that_was_confirmed(tmp_path: Path) -> None:
    for endpoints in ({}, {"aws": "https://other.example.com"}, {"other": ELSEWHERE}):
        found = documents(tmp_path, **endpoints)
        assert found.desired.backends[0].unsupported == (f"the backend `aws` is not used: {WAITS}",)
        assert found.desired.pools[0].unsupported == (f"only the backend `aws` is allowed: {WAITS}",)
        old = endpoints.get("aws", "default")
        assert [str(one) for one in found.new_endpoints] == [
            f"backend aws: endpoint {old} → {ELSEWHERE}; its credentials will be sent there"
        ]
    found = documents(tmp_path, aws=ELSEWHERE)
    assert found.new_endpoints == ()
    assert not any((*found.desired.backends[0].unsupported, *found.desired.pools[0].unsupported))
    assert client(found.desired.backends[0], "sts", "eu-west-1").meta.endpoint_url == ELSEWHERE


def test_a_type_that_does_not_work_yet_is_not_said_to_wait(tmp_path: Path) -> None:
    text = TEXT.replace("aws", "gcp").replace("  endpoint", "  project_id: p1\n  endpoint")
    found = documents(tmp_path, text)
    assert found.new_endpoints == ()
    assert "not available in this version" in found.desired.pools[0].unsupported[0]


def test_what_a_run_carries_before_the_first_apply_confirms_nothing(tmp_path: Path) -> None:
    desired = documents(tmp_path).desired
    empty = State(version=VERSION, project="demo12345678", lineage="")
    state = carry(empty, pool="gpu", desired=desired, by="me", now=1)
    assert state.applied is not None
    assert applied_endpoints(state.applied.desired) == {}
    assert len(list(new_endpoints(desired, {}))) == 1


def test_yaml_cannot_confirm_its_own_endpoint(tmp_path: Path) -> None:
    from reconciler.config.problems import Invalid

    more = TEXT.replace("  endpoint", "  confirmed_endpoint: https://ec2.example.com\n  endpoint")
    with pytest.raises(Invalid):
        documents(tmp_path, more)


def test_the_applied_endpoints_are_those_that_may_be_used() -> None:
    here = BackendConfig(name="here", type="aws", options={"endpoint": HERE})
    own = BackendConfig(name="own", type="aws")
    assert applied_endpoints(None) == {}
    assert applied_endpoints(Desired(backends=(here, own, elsewhere()))) == {"here": HERE}
    assert applied_endpoints(Desired(backends=(elsewhere(ELSEWHERE),))) == {"try": ELSEWHERE}
