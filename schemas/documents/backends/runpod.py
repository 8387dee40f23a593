"""The backend `runpod`."""

from __future__ import annotations

from typing import Literal

from schemas.documents.backends.base import ApiKeyForm
from schemas.documents.scalars import Flag


class RunpodForm(ApiKeyForm):
    type: Literal["runpod"]
    community_cloud: Flag | None = None
