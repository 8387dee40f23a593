"""Check from a host's report that its self-termination timer still runs. Pure.

Whoever is root there can stop it, and jobs may be. What is silent only because its machine has just booted, or because
a busy machine is late, is no reason: the timer first runs five seconds after it was started, then each minute.
"""

from __future__ import annotations

BOOTING = 300  # seconds of uptime in which its system may still be starting it
LATE = 600  # seconds without a check that no load explains
SAID = "dead-man timer "


def disarmed(since: str, whole: str, load: str, active: str, enabled: str, *, uptime: int) -> str:
    """Why nothing would power it off when nobody needs it any more; "" while its timer runs.

    `since` is how many seconds ago it last asked in this boot, `-` for not yet; `whole` is ok | changed | missing, of
    its programs and units; the rest are systemd's words for the timer, `-` where there is no systemd. The words are
    stable: they are written down.
    """
    if whole != "ok":
        return f"{SAID}{'was changed' if whole == 'changed' else 'is not there any more'}"
    if uptime < BOOTING:
        return ""
    if load not in ("-", "loaded"):
        return f"{SAID}{'is masked' if load == 'masked' else 'is not there any more'}"
    if enabled not in ("-", "enabled"):
        return f"{SAID}is {enabled}"
    if active not in ("-", "active", "activating", "reloading"):
        return f"{SAID}was stopped"
    return _late(since, uptime=uptime)


def _late(since: str, *, uptime: int) -> str:
    silent = uptime if since == "-" else int(since)
    if silent < -BOOTING:
        return f"{SAID}tells of a time that has not come"
    return f"{SAID}has not run for more than {LATE // 60}m" if silent > LATE else ""
