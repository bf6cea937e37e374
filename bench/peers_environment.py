"""The environment of the systems that Carillon is measured against: their own, from a lock file of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from bench.errors import MissingServerError
from bench.process import output_of

PEERS = Path(__file__).parent / "peers"
PYTHON = PEERS / ".venv" / "bin" / "python"
#: Where `make setup` puts uv on a machine that has none.
TOOLS = PEERS.parent.parent / ".tools" / "bin"
SHOWN = frozenset(
    {
        "celery",
        "dbos",
        "kombu",
        "procrastinate",
        "psycopg",
        "redis",
        "sqlalchemy",
        "taskiq",
        "taskiq-aio-pika",
        "taskiq-redis",
    }
)


async def install() -> dict[str, str]:
    """Make the environment with uv, and say what is in it; quick when nothing changed."""
    uv = shutil.which("uv", path=os.pathsep.join([str(TOOLS), os.environ.get("PATH", os.defpath)]))
    if uv is None:
        message = "uv is missing, which sets up the peers: run `rm -rf .venv && make setup`, which fetches it."
        raise MissingServerError(message)
    env = {"VIRTUAL_ENV": "", "UV_PROJECT_ENVIRONMENT": "", "UV_PYTHON_DOWNLOADS": "never"}
    await output_of(uv, "sync", "--frozen", "--project", str(PEERS), "--python", sys.executable, env=env, limit=180)
    listed = json.loads(await output_of(uv, "pip", "list", "--python", str(PYTHON), "--format", "json", env=env))
    return {f"peer {package['name']}": package["version"] for package in listed if package["name"] in SHOWN}
