"""The scenarios of the fault matrix, in the order in which they run."""

from __future__ import annotations

from chaos.scenarios import broker, http, network, stores, telemetry, workers
from chaos.scenarios.scenario import Scenario

ALL: tuple[Scenario, ...] = (
    *workers.SCENARIOS,
    *broker.SCENARIOS,
    *network.SCENARIOS,
    *stores.SCENARIOS,
    *http.SCENARIOS,
    *telemetry.SCENARIOS,
)

__all__ = ["ALL", "Scenario"]
