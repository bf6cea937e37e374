"""The gateway, which requests may tell to die: `python -m chaos.gateway`."""

from __future__ import annotations

import uvloop

from chaos import mutations
from chaos.settings import ChaosSettings
from gateway.app import service

if __name__ == "__main__":
    mutations.apply(ChaosSettings())
    uvloop.run(service().run())
