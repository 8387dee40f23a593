"""Read what `nvidia-smi` lists."""

from __future__ import annotations

from backends.errors import TryLater
from schemas.resources import Gpu


def parse_gpus(listing: str) -> tuple[Gpu, ...]:
    """One line for each: `UUID, NVIDIA H200, 143771, 9.0`. Raises `TryLater` on any other text."""
    found = []
    for line in listing.splitlines():
        try:
            identity, name, memory, capability = (field.strip() for field in line.split(","))
            tenths = round(float(capability) * 10)
            found.append(Gpu(name=_short(name), memory=int(memory), compute_capability=tenths, uuids=(identity,)))
        except ValueError as error:
            raise TryLater(f"nvidia-smi: not understood: {line[:100]!a}") from error
    return tuple(found)


def _short(name: str) -> str:
    """`NVIDIA A100-SXM4-80GB` is asked for as `a100`; the vendor's and the form's words are not the model's."""
    words = name.lower().replace("-", " ").split()
    dropped = {"nvidia", "tesla", "geforce", "quadro", "graphics", "device"}
    kept = [word for word in words if word not in dropped]
    if kept[:1] == ["rtx"] and len(kept) > 1:
        return "".join(kept[:2])
    return kept[0] if kept else name.lower()
