"""The few fields of a state that completion needs: the rest of 100,000 records is skipped and never built."""

from __future__ import annotations

import msgspec


class _Named(msgspec.Struct):
    name: str = ""


class _Instance(msgspec.Struct):
    name: str = ""
    pool: str = ""
    phase: str = ""


class _Run(msgspec.Struct):
    spec: _Named


class _Place(msgspec.Struct):
    config: _Named
    name: str = ""


class StateNames(msgspec.Struct):
    """Of `schemas.state.State`; unknown fields are skipped."""

    instances: list[_Instance] = []
    runs: list[_Run] = []
    places: list[_Place] = []

    def of(self, key: str) -> list[str]:
        """Names of `pools`, `backends`, `places`, `runs` or living `instances`."""
        match key:
            case "pools":
                return [one.pool for one in self.instances]
            case "backends":
                return [place.config.name for place in self.places]
            case "places":
                return [place.name for place in self.places]
            case "runs":
                return [run.spec.name for run in self.runs]
            case _:
                return [one.name for one in self.instances if one.phase != "terminated"]
