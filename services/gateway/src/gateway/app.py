"""The gateway, assembled. `carillon serve gateway` runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import structlog
from litestar.di import Provide
from litestar.exceptions import HTTPException

from carillon import Service
from carillon.http import Web
from carillon.ledger.audit import MOST_REASON, Actor
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.telemetry.metrics import Metrics
from gateway import edge
from gateway.access import needs_key
from gateway.api import (
    audit,
    dead_letters,
    documents,
    events,
    files,
    keys,
    overview,
    pages,
    past,
    runs,
    schedules,
    selections,
    steering,
    tasks,
    workflows,
)
from gateway.api.intake import Intake
from gateway.api.requests import Bodies
from gateway.cursors import Cursors
from gateway.keys import LOCAL, secret_in
from gateway.live import Live, Picture
from gateway.problems import answer_problem
from gateway.settings import GatewaySettings
from gateway.store import Keys, Secrets

log = structlog.get_logger(__name__)

ROUTES = (
    tasks.list_tasks,
    tasks.submit_task,
    tasks.submit_batch,
    tasks.kick_task,
    runs.search_runs,
    runs.run_status,
    runs.run_details,
    runs.run_result,
    past.run_history,
    past.statistics,
    steering.cancel_run,
    steering.pause_run,
    steering.resume_run,
    steering.replay_run,
    steering.settle_run,
    steering.list_holds,
    steering.pause_domain,
    steering.resume_domain,
    steering.pause_task,
    steering.resume_task,
    workflows.list_workflows,
    workflows.show_workflow,
    workflows.show_graph,
    workflows.list_approvals,
    workflows.decide_step,
    workflows.fork_workflow,
    dead_letters.list_dead_letters,
    dead_letters.list_group,
    dead_letters.show_message,
    dead_letters.replay_group,
    dead_letters.discard_group,
    dead_letters.redeliver_message,
    dead_letters.redeliver_group,
    selections.select_runs,
    selections.act_on_selection,
    schedules.list_schedules,
    schedules.list_fires,
    schedules.pause_schedule,
    schedules.resume_schedule,
    events.take_events,
    events.list_events,
    events.list_event_types,
    audit.list_audit,
    audit.verify_audit,
    keys.list_keys,
    keys.create_key,
    keys.revoke_key,
    overview.overview,
    overview.live,
    files.report_file,
    documents.openapi,
    documents.asyncapi,
    pages.status,
    pages.run,
    pages.runs,
    pages.approvals,
    pages.dead_letters,
    pages.statistics,
    pages.audit,
    pages.api_documentation,
    pages.event_documentation,
    pages.static,
    pages.favicon,
)


def service() -> Service:
    """Put the gateway together from its settings."""
    settings = GatewaySettings()
    live = Live(settings.live_listeners)
    return Service(
        name="gateway",
        settings=PlatformSettings(),
        migrations="gateway.migrations",
        resources=partial(resources, settings),
        routes=partial(web, settings, live),
        background=live.run,
        port=settings.port,
    )


@asynccontextmanager
async def resources(settings: GatewaySettings, platform: Platform) -> AsyncIterator[Mapping[type, object]]:
    """See to it that the key in the key file opens this gateway."""
    if settings.key_file is not None:
        secret, reason = secret_in(settings.key_file), f"it is in {settings.key_file}"
        known = Keys(platform.engine)
        if await known.ensure(LOCAL, secret, Actor.process(platform.name), reason[:MOST_REASON]):
            log.info("key known", name=LOCAL, file=str(settings.key_file))
        else:
            advice = "delete the file and start again; a new key is made"
            log.warning("the key in the key file was revoked", name=LOCAL, file=str(settings.key_file), do=advice)
    yield {}


def web(settings: GatewaySettings, live: Live, platform: Platform, metrics: Metrics) -> Web:
    """What is served, and what handlers are given."""
    known = Keys(platform.engine)
    bodies = Bodies(most=settings.body_max_bytes, seconds=settings.body_timeout_seconds)
    batches = Bodies(most=settings.batch_max_bytes, seconds=settings.body_timeout_seconds)
    given: Mapping[str, object] = {
        "platform": platform,
        "bodies": bodies,
        "intake": Intake(platform, metrics, bodies, batches),
        "listeners": live,
        "picture": Picture(platform),
        "keys": known,
    }
    secrets = Secrets(platform.engine)

    async def cursors() -> Cursors:
        return Cursors(await secrets.get("cursors"))

    return Web(
        routes=ROUTES,
        dependencies={
            **{name: Provide(_always(value), sync_to_thread=False) for name, value in given.items()},
            "cursors": Provide(cursors),
        },
        guards=[needs_key(known, open_reads=settings.open_reads)],
        exception_handlers={Exception: answer_problem, HTTPException: answer_problem},
        openapi=documents.CONFIG,
        around=edge.around(edge.RequestMetrics(metrics.registry), settings.answer_timeout_seconds),
    )


def _always(value: object) -> Callable[[], object]:
    return lambda: value
