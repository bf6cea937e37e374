"""How large a run of the matrix is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Profile:
    """Sizes that scenarios share; durations in seconds."""

    name: str
    #: The whole command stops by itself after this.
    limit: float
    seeds: tuple[int, ...]
    #: Submits per second.
    rate: float
    #: Worker processes by domain.
    workers: Mapping[str, int] = field(default_factory=dict)
    #: How long the usual rate is measured before the fault.
    usual: float = 2.0
    #: How long faults without a length of their own go on.
    fault: float = 4.0
    #: Silence after which a worker counts as lost; 0 is what Carillon ships with, 15.
    silence: float = 4.0
    #: How long runs may take to end after the load has.
    settle: float = 40.0
    #: Runs of the scenario that kills workers; how often one is killed.
    kill_runs: int = 0
    kill_every: float = 2.0
    #: Ids for each point to die at.
    crashes: int = 1
    #: How long the broker is away, each.
    outages: tuple[float, ...] = (5.0,)
    #: Restarts of PostgreSQL, and the time between them.
    restarts: int = 2
    restart_every: float = 4.0
    #: Whether all scenarios run on all their transports, or where they have a place in the quick profile.
    everything: bool = False
    #: Whether those of one transport are played beside those of the other, which share no server but PostgreSQL.
    side_by_side: bool = False


QUICK = Profile(
    name="quick",
    limit=355.0,
    seeds=(1,),
    rate=50.0,
    workers={"bells": 2, "choir": 1},
    side_by_side=True,
)
FULL = Profile(
    name="full",
    limit=6 * 3600.0,
    seeds=(1, 2, 3, 4, 5),
    rate=150.0,
    workers={"bells": 4, "choir": 4},
    usual=5.0,
    fault=20.0,
    silence=0.0,
    settle=120.0,
    kill_runs=20_000,
    crashes=10,
    outages=(5.0, 59.0),
    restarts=4,
    restart_every=20.0,
    everything=True,
)
PROFILES = {profile.name: profile for profile in (QUICK, FULL)}
