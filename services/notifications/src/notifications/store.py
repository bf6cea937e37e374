"""Keeps deliveries in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from notifications.deliveries import Delivery, Parcel, State, storable
from notifications.models import deliveries

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncEngine


#: Rows deleted in one transaction.
MOST_FORGOTTEN = 5_000


class StoredDeliveries:
    """The delivery log in the table `notifications.deliveries`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self, parcel: Parcel) -> Delivery:
        """Insert the row or count another attempt, in one statement."""
        new = insert(deliveries).values(
            id=parcel.id,
            cause=parcel.cause.id,
            cause_type=parcel.cause.type,
            channel=parcel.channel,
            destination=parcel.destination,
            subject=parcel.subject,
            state="pending",
            attempts=1,
        )
        again = {
            "attempts": deliveries.c.attempts + case((deliveries.c.state == "delivered", 0), else_=1),
            "updated_at": func.now(),
        }
        upsert = new.on_conflict_do_update(constraint="uq_deliveries_cause_channel_destination", set_=again)
        async with self._engine.begin() as connection:
            row = (await connection.execute(upsert.returning(*deliveries.c))).mappings().one()
        return _delivery(parcel, row)

    async def end(self, parcel: Parcel, state: State, error: str | None = None) -> Delivery:
        """Record the outcome, unless a delivered one stands there already."""
        values = {"state": state, "error": storable(error), "updated_at": func.now()}
        if state == "delivered":
            values["delivered_at"] = func.now()
        still_open = (deliveries.c.id == parcel.id) & (deliveries.c.state != "delivered")
        async with self._engine.begin() as connection:
            await connection.execute(update(deliveries).where(still_open).values(values))
            row = (await connection.execute(deliveries.select().where(deliveries.c.id == parcel.id))).mappings().one()
        return _delivery(parcel, row)

    async def forget(self, age: timedelta) -> int:
        """Delete up to 5,000 rows that nothing happened to for so long; returns how many those were."""
        old = select(deliveries.c.id).where(deliveries.c.updated_at < func.now() - age)
        oldest = old.order_by(deliveries.c.updated_at).limit(MOST_FORGOTTEN).scalar_subquery()
        async with self._engine.begin() as connection:
            return (await connection.execute(delete(deliveries).where(deliveries.c.id.in_(oldest)))).rowcount


def _delivery(parcel: Parcel, row: RowMapping) -> Delivery:
    return Delivery(parcel, row["state"], row["attempts"], row["created_at"], row["error"])
