"""Ends of many instances at once, where EC2 refuses the call for all of them."""

from __future__ import annotations

from schemas.launch import Refused, Unknown
from tests.backends.aws.test_backend import account  # noqa: F401 - a fixture
from tests.doubles.aws.aws_double import Account
from tests.doubles.aws.aws_world import AwsPlaces

REFUSED = 40


def test_only_what_was_refused_alone_counts_as_refused(account: Account) -> None:  # noqa: F811
    account.fault("TerminateInstances", "UnauthorizedOperation", status=403, message="not allowed", times=1000)
    ids = [f"i-{number:017x}" for number in range(100)]
    answers = AwsPlaces(account=account).place().terminate(ids)
    assert set(answers) == set(ids)
    refused = [id for id, one in answers.items() if isinstance(one, Refused)]
    unknown = [one for one in answers.values() if isinstance(one, Unknown)]
    assert 0 < len(refused) < REFUSED
    assert len(refused) + len(unknown) == len(ids)
    assert all("not allowed" in one.why for one in unknown)
