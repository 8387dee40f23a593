"""Types that configurations of dstack 0.16 to 0.18 may declare or name, and that this program does not run.

They validate as they did there. A pool that allows nothing else cannot run.
"""

from __future__ import annotations

from typing import Annotated, Literal

from schemas.documents.backends.base import ApiKey, BackendForm, secret_keys
from schemas.documents.scalars import Text

OTHER_TYPES = ("dstack", "remote")
"""Those that a run may name, which no project can declare."""

_OCI = secret_keys("user", "tenancy", "key_content", "pass_phrase", "fingerprint", "region")


class OciForm(BackendForm):
    type: Literal["oci"]
    creds: Annotated[dict[str, str], _OCI] | None = None
    compartment_id: Text | None = None


class OtherKeyForm(BackendForm):
    """A cloud that one API key opens."""

    creds: ApiKey | None = None


class CudoForm(OtherKeyForm):
    type: Literal["cudo"]
    project_id: Text | None = None


class DatacrunchForm(OtherKeyForm):
    type: Literal["datacrunch"]


class NebiusForm(OtherKeyForm):
    type: Literal["nebius"]


class VultrForm(OtherKeyForm):
    type: Literal["vultr"]
