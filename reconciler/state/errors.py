"""Errors of reading and writing the state."""

from __future__ import annotations


class StateRefused(Exception):
    """The state may not be read or written. Nothing was touched; the message has the next command."""


class StateMoved(Exception):
    """Somebody else wrote first. Read again, plan again on the same observation, write again."""
