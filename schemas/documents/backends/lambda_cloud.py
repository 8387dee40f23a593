"""The backend `lambda`."""

from __future__ import annotations

from typing import Literal

from schemas.documents.backends.base import ApiKeyForm


class LambdaForm(ApiKeyForm):
    type: Literal["lambda"]
