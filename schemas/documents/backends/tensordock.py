"""The backend `tensordock`."""

from __future__ import annotations

from typing import Literal

from schemas.documents.backends.base import ApiKeyForm


class TensordockForm(ApiKeyForm):
    type: Literal["tensordock"]
