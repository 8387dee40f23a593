"""The meanings of AWS's error codes, in one table. AWS's own words are kept.

A code that is not here is permanent, unless its answer was a failure of the server (5xx): of those nothing is known.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from backends.errors import BackendError, CallFailed, LackingHere, NoCapacity, QuotaExceeded, TryLater

Meaning = Literal["capacity", "unsupported", "quota", "later", "permanent"]

ON_DEMAND_RETRY, SPOT_RETRY, UNSUPPORTED_RETRY = 180, 45, 3600  # seconds until an offer is tried again

REFUSED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "UnauthorizedAccess")
"""Codes of a missing permission."""

MEANINGS: dict[str, Meaning] = {
    # This type, zone and purchase, now.
    "InsufficientInstanceCapacity": "capacity",
    "InsufficientHostCapacity": "capacity",
    "InsufficientReservedInstanceCapacity": "capacity",
    "InsufficientCapacity": "capacity",
    "InsufficientCapacityOnHost": "capacity",
    "InsufficientFreeAddressesInSubnet": "capacity",
    "ReservationCapacityExceeded": "capacity",
    "SpotMaxPriceTooLow": "capacity",
    "UnfulfillableCapacity": "capacity",
    # Never there, as configured: asked again much later.
    "Unsupported": "unsupported",
    "UnsupportedOperation": "unsupported",
    "InvalidInstanceType": "unsupported",  # of a region that has no such type
    # The account's own bounds. AWS's own page calls the spot count a limit of the account.
    "VcpuLimitExceeded": "quota",
    "InstanceLimitExceeded": "quota",
    "MaxSpotInstanceCountExceeded": "quota",
    "VolumeLimitExceeded": "quota",
    "MaxIOPSLimitExceeded": "quota",
    "AddressLimitExceeded": "quota",
    "NetworkInterfaceLimitExceeded": "quota",
    "PrivateIpAddressLimitExceeded": "quota",
    "SecurityGroupLimitExceeded": "quota",
    "RulesPerSecurityGroupLimitExceeded": "quota",
    "PendingVerification": "later",
    # Throttled, or a server's trouble: nothing is known of the call.
    "RequestLimitExceeded": "later",
    "Throttling": "later",
    "ThrottlingException": "later",
    "ThrottledException": "later",
    "RequestThrottled": "later",
    "RequestThrottledException": "later",
    "TooManyRequestsException": "later",
    "EC2ThrottledException": "later",
    "BandwidthLimitExceeded": "later",
    "PriorRequestNotComplete": "later",
    "SlowDown": "later",
    "RequestTimeout": "later",
    "RequestTimeoutException": "later",
    "ServiceUnavailable": "later",
    "Unavailable": "later",
    "InternalError": "later",
    "InternalFailure": "later",
    "InternalServerError": "later",
    # The first request of that token made something: it is not lost, a listing shows it.
    "IdempotentParameterMismatch": "later",
    # Not yet known everywhere, as new things are.
    "InvalidInstanceID.NotFound": "later",
    "InvalidGroup.NotFound": "later",
    "InvalidGroupId.NotFound": "later",
    "InvalidPlacementGroup.Unknown": "later",
}

NUMBERED = ("ec2", "sts")  # services that put the request's id into every answer
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
UNTIMELY = frozenset({"RequestExpired", "AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException"})
NOT_HERE = frozenset({"AuthFailure", "OptInRequired", "InvalidClientTokenId", "UnrecognizedClientException"})
"""What a region says that the account has not switched on: the keys are good elsewhere."""
DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})
SKEW = 60  # seconds: beyond it nothing ends for reasons of time; AWS refuses what is off by more than 300
ANEW = "; log in again: `aws sso login`, or new temporary keys"


def ask(client: Any, operation: str, **parameters: Any) -> Any:
    """The answer of one call. Raises what its failure means (`backends.base`), never an error of botocore's.

    What is well-formed and no answer of AWS's (a portal's page) would read as one in which there is nothing.
    """
    try:
        answer = getattr(client, operation)(**parameters)
    except failures() as error:
        spot, about = "InstanceMarketOptions" in parameters, _about_region(client, code_of(error))
        raise understood(error, operation=operation, spot=spot, about=about) from None
    if client.meta.service_model.service_name in NUMBERED and not answer["ResponseMetadata"].get("RequestId"):
        raise TryLater(f"{operation} at {client.meta.endpoint_url}: what answered is not AWS: a proxy on the way?")
    return answer


def pages(client: Any, operation: str, **parameters: Any) -> Iterator[Any]:
    """Every page of a listing. Raises as `ask` does, and where a page leads back to one before: it would never end."""
    token, led = "", set[str]()
    while token not in led:
        led.add(token)
        page = ask(client, operation, **parameters, **({"NextToken": token} if token else {}))
        yield page
        token = page.get("NextToken") or ""
        if not token:
            return
    raise TryLater(f"{operation} at {client.meta.endpoint_url}: a page leads back to one before: a proxy on the way?")


def ahead_of(response: Mapping[str, Any], *, now: float) -> int | None:
    """By how many seconds `now` is ahead of the date of that answer, which came just now; `None`: it has none."""
    said = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return round(now - parsedate_to_datetime(said).timestamp())
    except ValueError:
        return None


def failures() -> tuple[type[Exception], ...]:
    """Everything that a call may raise. A page of a proxy's is none of botocore's own errors."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return ClientError, BotoCoreError, ResponseParserError


def understood(error: Exception, *, operation: str = "", spot: bool = False, about: str = "") -> CallFailed:
    """The meaning of an error of botocore's. `spot`: of a spot request, for which capacity returns sooner.

    `about` is what it may have to do with the region, in words to append.
    """
    code, words = code_of(error), words_of(error)
    if not code:
        return _without_answer(error, words, about=about)
    match _meaning(error, code):
        case "capacity":
            return NoCapacity(words, retry_after=SPOT_RETRY if spot else ON_DEMAND_RETRY)
        case "unsupported" if operation in ("run_instances", "describe_instance_types"):
            return NoCapacity(words, retry_after=UNSUPPORTED_RETRY)
        case "quota":
            return QuotaExceeded(words, quota=code)
        case "later":
            return TryLater(words)
        case _:
            if here := _clock(error, code) or (ANEW if code in EXPIRED else ""):
                return LackingHere(words + here)
            return BackendError(words + _denied(error, code, words) + about)


def _about_region(client: Any, code: str) -> str:
    """What a failure may have to do with the region that was asked; "" where nothing suggests that."""
    region, service = client.meta.region_name, client.meta.service_model.service_name
    if code in NOT_HERE and service == "ec2":
        return f"; or {region} is not enabled in this account: `aws account enable-region --region-name {region}`"
    if code or service != "ec2" or region in _regions():
        return ""
    return f"; boto3 knows no region {region}: is it mistyped?"


def _regions() -> frozenset[str]:
    """Of EC2, in every partition, as far as boto3 knows."""
    from botocore.session import Session

    core = Session()
    partitions = core.get_available_partitions()
    return frozenset(name for one in partitions for name in core.get_available_regions("ec2", partition_name=one))


def _denied(error: Exception, code: str, words: str) -> str:
    """Which action is to be allowed, where AWS's words keep it to themselves, as EC2's often do."""
    action = getattr(error, "operation_name", "")
    return f" ({action})" if code in DENIED and action and action not in words else ""


def _clock(error: Exception, code: str) -> str:
    """What a refusal for the time of the request is about. AWS's own words speak of credentials."""
    ahead = ahead_of(getattr(error, "response", None) or {}, now=time.time()) if code in UNTIMELY else None
    if ahead is None or abs(ahead) <= SKEW:
        return ""
    return f"; this machine's clock is {abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'} AWS's: set it (NTP)"


def code_of(error: Exception) -> str:
    """AWS's code, without the `Client.` or `Server.` that some calls put before it; "" where no answer came."""
    response = getattr(error, "response", None) or {}
    return re.sub(r"^(Client|Server)\.", "", str(response.get("Error", {}).get("Code", "")))


def words_of(error: Exception) -> str:
    """`Code: message`, in one line, without control characters, at most 600 characters."""
    said = (getattr(error, "response", None) or {}).get("Error", {})
    # The first line: of what cannot be read botocore quotes everything after it.
    text = f"{said.get('Code', '')}: {said.get('Message', '')}" if said.get("Code") else str(error).partition("\n")[0]
    text = re.sub(r"\s*Encoded authorization failure message: \S+", "", text)
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).split())[:600]


def _meaning(error: Exception, code: str) -> Meaning:
    known = MEANINGS.get(code)
    if known is not None:
        return known
    status = (getattr(error, "response", None) or {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return "later" if status >= 500 else "permanent"


def _without_answer(error: Exception, words: str, *, about: str) -> CallFailed:
    """Cut off or never reached: anything may have happened. What botocore itself refuses was never sent.

    A login that it does not find, or that is over, and a way to AWS that it does not find, are this machine's.
    """
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import (
        CredentialRetrievalError,
        HTTPClientError,
        IncompleteReadError,
        MetadataRetrievalError,
        NoAuthTokenError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
        ResponseStreamingError,
        SSOError,
        TokenRetrievalError,
    )
    from botocore.parsers import ResponseParserError

    if isinstance(error, ResponseParserError):
        return TryLater(f"what answered is not AWS: a proxy on the way?{about}")
    if isinstance(error, HTTPClientError | IncompleteReadError | ResponseStreamingError):
        return TryLater(words + about)
    ours = (
        NoConnection,
        CredentialRetrievalError,
        MetadataRetrievalError,
        NoAuthTokenError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
        SSOError,
        TokenRetrievalError,
    )
    return LackingHere(words + about) if isinstance(error, ours) else BackendError(words)
