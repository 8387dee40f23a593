"""The backend `vastai`."""

from __future__ import annotations

from typing import Literal

from schemas.documents.backends.base import ApiKeyForm


class VastaiForm(ApiKeyForm):
    type: Literal["vastai"]
