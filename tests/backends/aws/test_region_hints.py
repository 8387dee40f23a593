"""A region that is mistyped, or not switched on in the account, is named in what a failure says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.parsers import ResponseParserError

from backends.aws.errors import ask
from backends.errors import CallFailed


def client(region: str, error: Exception, *, service: str = "ec2") -> Any:
    def fail(**parameters: Any) -> Any:
        raise error

    model = SimpleNamespace(service_name=service)
    meta = SimpleNamespace(region_name=region, service_model=model, endpoint_url=f"https://{service}.{region}")
    return SimpleNamespace(meta=meta, describe_instances=fail)


def refused(code: str, status: int = 401) -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": "AWS was not able to validate the provided access credentials"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "DescribeInstances")


def said(region: str, error: Exception, *, service: str = "ec2") -> str:
    with pytest.raises(CallFailed) as caught:
        ask(client(region, error, service=service), "describe_instances")
    return str(caught.value)


LOST = EndpointConnectionError(endpoint_url="https://ec2.eu-west-9.amazonaws.com/")
CUT = ResponseParserError("Unable to parse response (syntax error: line 1, column 0), invalid XML received:\nb'<p>'")


@pytest.mark.parametrize("error", [LOST, CUT])
@pytest.mark.parametrize("region", ["eu-west-9", "eu-west1", "us-east-1a"])
def test_a_region_that_nobody_knows_is_named(region: str, error: Exception) -> None:
    assert f"boto3 knows no region {region}: is it mistyped?" in said(region, error)


@pytest.mark.parametrize("error", [LOST, CUT])
@pytest.mark.parametrize("region", ["eu-west-1", "cn-north-1", "us-gov-west-1"])
def test_a_known_region_is_not_blamed(region: str, error: Exception) -> None:
    assert "mistyped" not in said(region, error)


def test_what_cannot_be_read_is_told_in_our_words() -> None:
    assert said("eu-west-1", CUT) == "what answered is not AWS: a proxy on the way?"


@pytest.mark.parametrize(
    "code", ["AuthFailure", "OptInRequired", "InvalidClientTokenId", "UnrecognizedClientException"]
)
def test_a_region_that_may_not_be_switched_on_is_named(code: str) -> None:
    hint = "or af-south-1 is not enabled in this account: `aws account enable-region --region-name af-south-1`"
    assert hint in said("af-south-1", refused(code))


def test_other_refusals_do_not_speak_of_regions() -> None:
    assert "region" not in said("af-south-1", refused("UnauthorizedOperation", 403))
