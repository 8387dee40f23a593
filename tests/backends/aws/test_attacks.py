"""What others, accidents and hands in the console do to our things in AWS: nothing is lost, doubled, ended wrongly."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.aws import backend as aws
from backends.aws.leftovers import REMOVALS
from backends.errors import BackendError, TryLater
from reconciler.engine.garbage import ask_everywhere
from reconciler.engine.ports import Connections
from reconciler.state.errors import StateRefused
from reconciler.state.observe.listing_scope import scope_of
from reconciler.state.unowned import PlaceContents, unowned
from schemas.launch import Made, Refused
from schemas.leftover import Kind, Leftover
from schemas.plan import Permissions
from schemas.pool import Pool
from tests.backends.aws.test_backend import ON_DEMAND, account, launched, request  # noqa: F401 - a fixture
from tests.contracts.backend_contract import living
from tests.doubles.aws.aws_double import Account
from tests.doubles.aws.aws_world import Around, AwsPlaces, AwsSite, papers
from tests.doubles.commands.command import folder_at
from tests.worlds.world import PROJECT, apply, cron

POOL = Pool(name="default-pool", default=True, nodes_min=1, nodes_max=4, idle_duration=60)
ALL = Permissions(destroy_pools=("*",))
PAGES = {
    "broken": "<html><body><p>Sign in to the hotel</body></html>",
    "whole": "<html><body>Sign in to the hotel</body></html>",
    "empty": "",
    "bomb": '<!DOCTYPE x [<!ENTITY a "' + "a" * 4096 + '">'
    + "".join(f'<!ENTITY {n} "{f"&{chr(ord(n) - 1)};" * 64}">' for n in "bcdefg")
    + "]><x>&g;</x>",
}  # fmt: skip


@pytest.fixture
def places(account: Account) -> AwsPlaces:  # noqa: F811
    return AwsPlaces(account=account)


@pytest.fixture
def site(account: Account, tmp_path: Path) -> AwsSite:  # noqa: F811
    site = AwsSite(scratch=tmp_path, account=account)
    apply(site, papers(pools=[POOL]))
    goes_on(site, 2)
    return site


def goes_on(site: AwsSite, count: int = 1, *, apart: int = 20) -> None:
    for _ in range(count):
        site.clock.at += apart
        assert cron(site).refused == ""


# ---------------------------------------------------------------- who answers is not EC2


@pytest.mark.parametrize("page", [name for name in PAGES if PAGES[name]])
def test_a_page_of_somebody_elses_is_no_answer(places: AwsPlaces, page: str) -> None:
    backend = places.place()
    prepared = backend.prepare(request(), ON_DEMAND)
    backend.launch(prepared)
    for action in ("DescribeInstances", "RunInstances", "TerminateInstances"):
        places.account.fault(action, page=PAGES[page])
    (one,) = places.account.living()
    for call in (backend.instances, lambda: backend.launch(prepared), lambda: backend.terminate([one["id"]])):
        with pytest.raises(TryLater) as caught:
            call()
        assert len(str(caught.value)) <= 600
    assert [seen.external_id for seen in backend.instances()] == [one["id"]]


def test_credentials_that_end_between_a_lost_answer_and_the_next_sending_promise_nothing(places: AwsPlaces) -> None:
    backend = places.place()
    prepared = backend.prepare(request(), ON_DEMAND)
    places.account.fault("RunInstances", after=True, cut=True)
    with pytest.raises(TryLater):
        backend.launch(prepared)
    for action in ("RunInstances", "DescribeInstances"):
        places.account.fault(action, "RequestExpired", status=400, message="Request has expired.")
    with pytest.raises(TryLater, match="RequestExpired"):
        backend.launch(prepared)
    places.account.fault("DescribeSecurityGroups", "UnauthorizedOperation", status=403, message="no more")
    with pytest.raises(TryLater, match="UnauthorizedOperation"):
        backend.launch(prepared)
    aws._identities.clear()
    places.account.fault("GetCallerIdentity", "ExpiredToken", status=403, message="expired")
    with pytest.raises(TryLater, match="ExpiredToken"):
        backend.launch(prepared)
    assert len(places.account.living()) == 1


ROUND = """<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>
<reservationSet/><nextToken>TOKEN</nextToken></DescribeInstancesResponse>"""


@pytest.mark.parametrize("tokens", ["a", "ab"])
def test_a_listing_whose_pages_lead_in_a_circle_is_no_answer(places: AwsPlaces, tokens: str) -> None:
    """Said after one call more, not after a tick's whole patience."""
    for token in tokens * 2:
        places.account.fault("DescribeInstances", page=ROUND.replace("TOKEN", token))
    with pytest.raises(TryLater, match="leads back to one before"):
        places.place().instances()
    assert places.account.calls()["eu-west-1", "DescribeInstances"] == len(tokens) + 1


# ---------------------------------------------------------------- hands in the console


def test_one_that_may_not_be_ended_keeps_no_other_from_its_end(places: AwsPlaces) -> None:
    _, backend = launched(places, count=5)
    ids = [seen.external_id for seen in living(backend)]
    places.account.client().modify_instance_attribute(InstanceId=ids[1], DisableApiTermination={"Value": True})
    places.account.client().modify_instance_attribute(InstanceId=ids[4], DisableApiTermination={"Value": True})
    answers = backend.terminate([*ids, "i-0123456789abcdef0"])
    assert {one["id"] for one in places.account.living()} == {ids[1], ids[4]}
    refused = {id: one.why for id, one in answers.items() if isinstance(one, Refused)}
    assert set(refused) == {ids[1], ids[4]}
    assert all("disableApiTermination" in why for why in refused.values())
    assert set(answers) == {*ids, "i-0123456789abcdef0"}


def test_one_that_no_permission_reaches_keeps_no_other_from_its_end(places: AwsPlaces) -> None:
    """As the tag-conditioned policy has it: which one it was is not said."""
    _, backend = launched(places, count=4)
    ids = [seen.external_id for seen in living(backend)]
    # The first two batches that hold the one, and the one itself.
    places.account.fault("TerminateInstances", "UnauthorizedOperation", status=403, message="not allowed", times=3)
    refused = backend.terminate(ids)[ids[0]]
    assert isinstance(refused, Refused)
    assert "UnauthorizedOperation" in refused.why
    assert [one["id"] for one in places.account.living()] == [ids[0]]


def untagged(site: AwsSite, *keys: str) -> str:
    (one,) = site.account.living()
    site.account.client().delete_tags(Resources=[one["id"]], Tags=[{"Key": key} for key in keys])
    return str(one["id"])


def test_without_our_tag_it_is_still_there(site: AwsSite) -> None:
    """A listing shows it no more: it is asked for by its id, and neither forgotten nor bought again."""
    id = untagged(site, "dstack-project")
    goes_on(site, 4, apart=200)
    assert [one["id"] for one in site.account.living()] == [id]
    assert [(one.external_id, one.phase) for one in site.state.instances] == [(id, "ready")]


def test_without_any_tag_it_is_ended_when_nobody_needs_it(site: AwsSite) -> None:
    untagged(site, "dstack-project", "dstack-lineage", "dstack-launch", "dstack-pool", "dstack-price")
    apply(site, papers(pools=[replace(POOL, nodes_min=0)]), permissions=ALL)
    goes_on(site, 4, apart=100)
    assert site.account.living() == []


def test_a_lineage_tag_taken_off_is_said_and_changes_nothing(site: AwsSite) -> None:
    id = untagged(site, "dstack-lineage")
    for _ in range(4):
        site.clock.at += 300
        result = cron(site)
    assert any(id in one and "lacks its tag dstack-lineage" in one for one in result.warnings)
    assert [one["id"] for one in site.account.living()] == [id]
    assert [(one.external_id, one.phase, one.orphan) for one in site.state.instances] == [(id, "ready", "")]
    assert len(site.account.requests()) == 1


def test_the_projects_own_tag_taken_off_is_said_too(site: AwsSite) -> None:
    id = untagged(site, "dstack-project")
    site.clock.at += 20
    assert any(id in one and "lacks its tag dstack-project" in one for one in cron(site).warnings)


def test_anothers_without_its_lineage_is_nobodys_to_end(site: AwsSite) -> None:
    """Another state of this project made it; without that tag nothing says so but its launch."""
    other = AwsPlaces(account=site.account, around=Around(project=PROJECT, lineage="otherlin")).place()
    asked = request(project=PROJECT, lineage="otherlin", pool="default-pool")
    (theirs,) = other.launch(other.prepare(asked, ON_DEMAND)).values()
    assert isinstance(theirs, Made)
    site.account.client().delete_tags(Resources=[theirs.external_id], Tags=[{"Key": "dstack-lineage"}])
    for _ in range(6):
        site.clock.at += 400
        result = cron(site)
    assert any(theirs.external_id in one and "never heard of" in one for one in result.warnings)
    assert theirs.external_id in {one["id"] for one in site.account.living()}
    assert len(site.account.living()) == 2


# ---------------------------------------------------------------- EC2 is behind itself


def refused_while_unseen(site: AwsSite) -> None:
    """A launch whose answer was lost, and then a refusal of the same request: nobody sees yet what it made."""
    site.account.set(lag=6)
    site.account.fault("RunInstances", after=True, cut=True)
    apply(site, papers(pools=[replace(POOL, nodes_min=2)]))
    site.account.fault("RunInstances", "UnauthorizedOperation", status=403, message="not any more")
    goes_on(site)


def test_a_refusal_is_no_promise_while_ec2_may_not_show_what_was_made(site: AwsSite) -> None:
    refused_while_unseen(site)
    assert [intent.refused for intent in site.state.intents] == [""]
    goes_on(site, 12, apart=40)
    assert len(site.account.living()) == len(site.account.requests()) == 2
    assert [(one.phase, one.orphan) for one in site.state.instances] == [("ready", ""), ("ready", "")]


def test_a_refusal_of_the_first_sending_is_believed_at_once(site: AwsSite) -> None:
    site.account.fault("RunInstances", "UnauthorizedOperation", status=403, message="not allowed")
    result = apply(site, papers(pools=[replace(POOL, nodes_min=2)]))
    assert not site.state.intents
    assert "not allowed" in " ".join(one.why for one in result.plan.unmet)


@pytest.mark.parametrize("cut", [False, True], ids=["answered", "answer-lost"])
def test_a_machine_that_no_listing_shows_for_long_is_neither_bought_again_nor_ended(site: AwsSite, cut: bool) -> None:
    site.account.set(lag=14)
    if cut:
        site.account.fault("RunInstances", after=True, cut=True)
    apply(site, papers(pools=[replace(POOL, nodes_min=2)]))
    goes_on(site, 16, apart=30)
    assert len(site.account.living()) == len(site.account.requests()) == 2
    assert [(one.phase, one.orphan) for one in site.state.instances] == [("ready", ""), ("ready", "")]
    assert site.account.calls()["eu-west-1", "TerminateInstances"] == 0


def test_launches_swapped_between_two_change_nobody(site: AwsSite) -> None:
    apply(site, papers(pools=[replace(POOL, nodes_min=2)]))
    goes_on(site, 3)
    first, second = site.account.living()
    ec2 = site.account.client()
    for one, other in ((first, second), (second, first)):
        ec2.create_tags(Resources=[one["id"]], Tags=[{"Key": "dstack-launch", "Value": other["tags"]["dstack-launch"]}])
    before = {one.id: one.external_id for one in site.state.instances}
    goes_on(site, 4, apart=200)
    assert {one.id: one.external_id for one in site.state.instances} == before
    assert {one["id"] for one in site.account.living()} == {first["id"], second["id"]}


def test_a_stopped_one_is_ended_and_its_run_tried_again(site: AwsSite) -> None:
    """Its disks bill, and nothing runs there any more."""
    (one,) = site.account.living()
    site.account.client().stop_instances(InstanceIds=[one["id"]])
    goes_on(site, 4, apart=200)
    (mine,) = [each for each in site.state.instances if each.external_id == one["id"]]
    assert mine.phase == "terminated"
    assert one["id"] not in {each["id"] for each in site.account.living()}
    assert site.account.calls()["eu-west-1", "TerminateInstances"] == 1


# ---------------------------------------------------------------- what a policy does not allow

DOCUMENTS = """\
project: {name: demo, id: demo12345678}
state: local
backends: [{type: aws, regions: [eu-west-1], connect: {jump: {hostname: 127.0.0.1, port: 9, user: nobody}}}]
pools: [{name: cloud, default: true, nodes: 1, instance_types: [m5.large], resources: {cpu: 2, memory: 8GB}}]
"""
DENIED = {"code": "UnauthorizedOperation", "status": 403, "message": "You are not authorized to perform this operation"}


def test_a_launch_that_is_refused_is_not_called_done(account: Account, tmp_path: Path) -> None:  # noqa: F811
    folder = folder_at(tmp_path, documents=DOCUMENTS)
    account.fault("RunInstances", times=9, **DENIED)
    ran = folder.dstack("apply", "-y", "-d", env=account.environ)
    assert (ran.code, account.living()) == (1, [])
    assert "launched" not in ran.out
    assert "failed: UnauthorizedOperation: You are not authorized" in ran.err


def test_an_end_that_is_refused_is_said_and_not_waited_for(account: Account, tmp_path: Path) -> None:  # noqa: F811
    """It stays marked: with leave to do it, the next one does."""
    folder = folder_at(tmp_path, documents=DOCUMENTS)
    assert folder.dstack("apply", "-y", "-d", env=account.environ).code == 0
    (one,) = account.living()
    account.fault("TerminateInstances", times=3, **DENIED)
    ran = folder.dstack("destroy", "--confirm", "demo", env=account.environ)
    assert (ran.code, len(account.living())) == (3, 1), ran
    said = f"failed: UnauthorizedOperation: {DENIED['message']} (TerminateInstances) (not ended: {one['id']})"
    assert said in ran.err
    ran = folder.dstack("destroy", "--confirm", "demo", env=account.environ)
    assert (ran.code, account.living()) == (0, []), ran


# An expired rule of an address that is nobody's any more, and one of our own that ends soon.
EXPIRED = ("198.51.100.9/32", "dstack until 2020-01-01T00:00:00Z")
SOON = ("203.0.113.7/32", time.strftime("dstack until %Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)))
RULES = {
    "CreateSecurityGroup": (),
    "AuthorizeSecurityGroupIngress": (),
    "AuthorizeSecurityGroupEgress": (),
    "RevokeSecurityGroupIngress": EXPIRED,
    "UpdateSecurityGroupRuleDescriptionsIngress": SOON,
}


@pytest.mark.parametrize("action", RULES)
def test_whoever_may_not_change_a_rule_hears_which_leave_is_wanting_and_has_all_rules_with_it(
    places: AwsPlaces, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """EC2's own words need not name the action. What was done by halves is not taken for done."""
    monkeypatch.setenv("DSTACK_ADDRESS", "203.0.113.7")
    if RULES[action]:
        tags = {"dstack-project": places.around.project}
        group(places.account, f"dstack-{places.around.project}", tags=tags, rule=RULES[action])
    places.account.fault(action, **DENIED)
    with pytest.raises(BackendError, match=f"UnauthorizedOperation: .*{action}"):
        launched(places)
    launched(places)
    groups = {one["GroupName"]: one for one in places.account.client().describe_security_groups()["SecurityGroups"]}
    door, peers = (groups[f"dstack-{places.around.project}{end}"] for end in ("", "-pool"))
    assert len(places.account.living()) == 1
    ((mine,),) = [rule["IpRanges"] for rule in door["IpPermissions"]]
    assert mine["CidrIp"] == "203.0.113.7/32"
    assert mine["Description"] not in ("", SOON[1])
    for rules in (peers["IpPermissions"], peers["IpPermissionsEgress"]):
        assert peers["GroupId"] in [pair["GroupId"] for rule in rules for pair in rule["UserIdGroupPairs"]]


@pytest.mark.parametrize("kind", REMOVALS)
def test_whoever_may_not_remove_a_thing_hears_which_leave_is_wanting(places: AwsPlaces, kind: Kind) -> None:
    action = "".join(word.title() for word in REMOVALS[kind][0].split("_"))
    places.account.fault(action, **DENIED)
    with pytest.raises(BackendError, match=rf"^UnauthorizedOperation: .* \({action}\)$"):
        places.place().remove(Leftover(kind=kind, id="x-0123456789abcdef0", place="aws/eu-west-1"))


# ---------------------------------------------------------------- tags of the documents


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ('"aws:owner": x', "tags that begin with `aws:` are AWS's own"),
        ("Dstack-project: x", "tags that begin with `dstack-` are dstack's own"),
        (f"{'k' * 129}: x", "a tag has at most 128 characters of name and 256 of value"),
        (f"k: {'v' * 257}", "a tag has at most 128 characters of name and 256 of value"),
    ],
    ids=["aws", "ours", "long-key", "long-value"],
)
@pytest.mark.parametrize("where", ["backend", "pool"])
def test_a_tag_that_ec2_would_refuse_is_a_problem_of_the_documents(
    tag: str, words: str, where: str, tmp_path: Path
) -> None:
    ahead = ", connect:" if where == "backend" else ", nodes:"
    folder = folder_at(tmp_path, documents=DOCUMENTS.replace(ahead, f", tags: {{{tag}}}{ahead}"))
    ran = folder.dstack("validate")
    assert ran.code == 1
    assert words in ran.said


def test_more_tags_than_ec2_takes_are_said_before_anything_is_made(places: AwsPlaces) -> None:
    backend = places.place(tags={f"k{number}": "x" for number in range(45)})
    with pytest.raises(BackendError, match="53 tags with those of the backend, the pool and ours: EC2 takes 50"):
        backend.prepare(request(), ON_DEMAND)


def test_a_name_of_the_persons_own_stays(places: AwsPlaces) -> None:
    launched(places, options={"tags": {"Name": "theirs"}})
    assert places.account.living()[0]["tags"]["Name"] == "theirs"


# ---------------------------------------------------------------- groups of others


def group(
    account: Account,  # noqa: F811
    name: str,
    *,
    tags: dict[str, str],
    open_to: str = "",
    rule: tuple[str, ...] = (),
) -> str:
    ec2 = account.client()
    vpc = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    specification = {"ResourceType": "security-group", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
    more = {"TagSpecifications": [specification]} if tags else {}
    made = ec2.create_security_group(GroupName=name, Description="x", VpcId=vpc, **more)["GroupId"]
    if open_to or rule:
        named = {"CidrIp": rule[0], "Description": rule[1]} if rule else {"CidrIp": open_to}
        ec2.authorize_security_group_ingress(
            GroupId=made, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [named]}]
        )
    return str(made)


@pytest.mark.parametrize("name", ["dstack-testproject", "dstack-testproject-pool"])
@pytest.mark.parametrize("tags", [{}, {"dstack-project": "otherproject"}], ids=["nobodys", "anothers"])
def test_a_group_of_our_name_that_is_not_ours_is_not_used(places: AwsPlaces, name: str, tags: dict[str, str]) -> None:
    made = group(places.account, name, tags=tags, open_to="0.0.0.0/0")
    with pytest.raises(BackendError, match=f"{made}.*{name}.*dstack-project=testproject"):
        launched(places)
    assert places.account.living() == []
    (there,) = places.account.client().describe_security_groups(GroupIds=[made])["SecurityGroups"]
    assert len(there["IpPermissions"]) == 1


def test_a_named_group_is_used_as_it_is_and_never_made(places: AwsPlaces) -> None:
    with pytest.raises(BackendError, match=r"`security_group`: .*no group called theirs"):
        launched(places, options={"security_group": "theirs"})
    assert places.account.living() == []
    group(places.account, "theirs", tags={})
    launched(places, options={"security_group": "theirs"})
    assert places.account.living()[0]["groups"] == ["dstack-testproject-pool", "theirs"]


# ---------------------------------------------------------------- gc


def test_gc_with_a_state_that_is_behind_takes_nothing(site: AwsSite) -> None:
    """A backup put back knows nothing of what was made since: that is no garbage."""
    backup = site.store.data
    apply(site, papers(pools=[replace(POOL, nodes_min=2)]))
    goes_on(site, 2)
    site.store.data = backup
    asked = ask_everywhere(site.ports(), site.state, Connections(site.ports(), site.state.lineage))
    with pytest.raises(StateRefused, match="older than the world"):
        unowned(site.state, asked.found)


def test_the_disk_and_the_request_of_an_open_launch_are_no_garbage(site: AwsSite) -> None:
    """Made, and not attached yet."""
    site.account.fault("RunInstances", after=True, cut=True)
    site.account.set(lag=3)
    apply(site, papers(pools=[replace(POOL, nodes_min=2)]))
    state = site.state
    (intent,) = state.intents
    parts = [
        Leftover(kind=kind, id=f"x-{kind}", place=intent.request.place, launch=launch, lineage=state.lineage)
        for kind in ("volume", "interface", "spot-request")
        for launch in (intent.id, "long-gone")
    ]
    found = unowned(state, [PlaceContents(intent.request.place, scope_of(state.places[0]), (), parts)])
    assert {one.launch for one in found} == {"long-gone"}
