"""Keeps the warehouse and the books in PostgreSQL, and the bank that we play. Each call is one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, cast, func, select, update
from sqlalchemy.dialects.postgresql import insert

from orders.invariants import Kept
from orders.models import bank_payments, deliveries, postings, reservations, shipments, stock, transactions
from orders.payments import check_funds
from orders.warehouse import changed, closed, out_of_stock

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from orders.warehouse import Delivery


class Store:
    """The tables of the schema `orders`: a `Warehouse`, and `Books`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def receive(self, delivery: Delivery) -> None:
        """See `Warehouse.receive`."""
        async with self._engine.begin() as connection:
            new = insert(deliveries).values(delivery.model_dump()).on_conflict_do_nothing()
            if (await connection.execute(new)).rowcount == 0:
                query = select(deliveries.c.item, deliveries.c.units).where(deliveries.c.id == delivery.id)
                if (await connection.execute(query)).one() != (delivery.item, delivery.units):
                    raise changed("delivery", delivery.id)
                return
            await _put_back(connection, delivery.item, delivery.units)

    async def reserve(self, order_id: str, item: str, units: int) -> None:
        """See `Warehouse.reserve`."""
        async with self._engine.begin() as connection:
            if not await _note(connection, order_id, item, units, "reserved"):
                held = reservations.c
                query = select(held.item, held.units, held.state).where(held.order_id == order_id)
                row = (await connection.execute(query)).one()
                if (row.item, row.units) != (item, units):
                    raise changed("order", order_id)
                if row.state not in {"reserved", "shipped"}:
                    raise closed(order_id, "was taken back before")
                return
            taken = (
                update(stock).where(stock.c.item == item, stock.c.units >= units).values(units=stock.c.units - units)
            )
            if (await connection.execute(taken)).rowcount == 0:
                raise out_of_stock(item, units)

    async def release(self, order_id: str, item: str, units: int) -> None:
        """See `Warehouse.release`."""
        async with self._engine.begin() as connection:
            if await _note(connection, order_id, item, units, "released"):
                return
            row = await _move(connection, order_id, {"reserved", "recalled"}, "released")
            if row is not None:
                await _put_back(connection, row.item, row.units)
            elif await _state(connection, order_id) == "shipped":
                raise closed(order_id, "is shipped, and has to be recalled before it is released")

    async def ship(self, order_id: str) -> None:
        """See `Warehouse.ship`."""
        async with self._engine.begin() as connection:
            if await _move(connection, order_id, {"reserved"}, "shipped") is None:
                if await _state(connection, order_id) != "shipped":
                    raise closed(order_id, "holds nothing that could be shipped")
                return
            paid = select(transactions.c.order_id).where(
                transactions.c.order_id == order_id, transactions.c.kind == "charge"
            )
            new = insert(shipments).from_select(["order_id"], paid)
            if (await connection.execute(new)).rowcount == 0:
                raise closed(order_id, "is not paid for")

    async def recall(self, order_id: str) -> None:
        """See `Warehouse.recall`."""
        async with self._engine.begin() as connection:
            await _move(connection, order_id, {"reserved", "shipped"}, "recalled")
            await connection.execute(update(shipments).where(shipments.c.order_id == order_id).values(is_recalled=True))

    async def book_charge(self, order_id: str, cents: int) -> None:
        """See `Books.book_charge`."""
        async with self._engine.begin() as connection:
            await _book(connection, order_id, "charge", cents)

    async def book_refund(self, order_id: str, cents: int) -> None:
        """See `Books.book_refund`."""
        async with self._engine.begin() as connection:
            await _book(connection, order_id, "charge", cents)
            await _book(connection, order_id, "refund", cents)

    async def kept(self) -> Kept:
        """All that is kept, as of one moment."""
        held, charge = reservations.c, func.sum(postings.c.cents)
        of_order = select(postings.c.order_id, _whole(charge)).where(postings.c.account == "bank")
        off = select(postings.c.order_id + " " + postings.c.kind).group_by(postings.c.order_id, postings.c.kind)
        # In a refund the bank has less, so an order that was shipped and has nothing left at the bank is not paid for.
        unpaid = (
            select(shipments.c.order_id)
            .outerjoin(postings, (postings.c.order_id == shipments.c.order_id) & (postings.c.account == "bank"))
            .where(~shipments.c.is_recalled)
            .group_by(shipments.c.order_id)
            .having(func.coalesce(charge, 0) <= 0)
        )
        async with self._engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="REPEATABLE READ")
            return Kept(
                received=await _units(connection, select(deliveries.c.item, _whole(func.sum(deliveries.c.units)))),
                in_stock=await _units(connection, select(stock.c.item, _whole(func.sum(stock.c.units)))),
                held=await _units(connection, _reserved(held.state.in_(["reserved", "recalled"]))),
                shipped=await _units(connection, _reserved(held.state == "shipped")),
                booked=await _units(connection, of_order.having(charge != 0)),
                unbalanced=list(await connection.scalars(off.having(charge != 0))),
                unpaid=list(await connection.scalars(unpaid)),
            )


class TableBank:
    """The bank that we play: a `Bank` in a table of its own, so that all processes have the same one."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def charge(self, key: str, user_id: str, cents: int) -> None:
        """See `Bank.charge`."""
        check_funds(user_id)
        async with self._engine.begin() as connection:
            new = insert(bank_payments).values(key=key, user_id=user_id, cents=cents, state="taken")
            if (await connection.execute(new.on_conflict_do_nothing())).rowcount == 0:
                paid = bank_payments.c
                query = select(paid.user_id, paid.cents, paid.state).where(paid.key == key)
                row = (await connection.execute(query)).one()
                if row.state != "taken":
                    raise closed(key, "got its money back before")
                if (row.user_id, row.cents) != (user_id, cents):
                    raise changed("payment", key)

    async def give_back(self, key: str) -> int:
        """See `Bank.give_back`."""
        async with self._engine.begin() as connection:
            new = insert(bank_payments).values(key=key, user_id="", cents=0, state="void")
            await connection.execute(new.on_conflict_do_nothing())
            paid = bank_payments.c
            await connection.execute(
                update(bank_payments).where(paid.key == key, paid.state == "taken").values(state="returned")
            )
            cents: int | None = await connection.scalar(select(paid.cents).where(paid.key == key))
            return cents or 0

    async def taken(self) -> dict[str, int]:
        """See `Bank.taken`."""
        query = select(bank_payments.c.key, bank_payments.c.cents).where(bank_payments.c.state == "taken")
        async with self._engine.connect() as connection:
            return dict((await connection.execute(query)).all())


async def _note(connection: AsyncConnection, order_id: str, item: str, units: int, state: str) -> bool:
    """Begin the reservation of an order in that state; False where it was begun before."""
    new = insert(reservations).values(order_id=order_id, item=item, units=units, state=state)
    return (await connection.execute(new.on_conflict_do_nothing())).rowcount == 1


async def _move(connection: AsyncConnection, order_id: str, states: set[str], new: str) -> Any:
    """Move a reservation from one of these states to a new one; its item and units, or None where it is in no such."""
    held = reservations.c
    moved = update(reservations).where(held.order_id == order_id, held.state.in_(states)).values(state=new)
    return (await connection.execute(moved.returning(held.item, held.units))).one_or_none()


async def _state(connection: AsyncConnection, order_id: str) -> str | None:
    state: str | None = await connection.scalar(select(reservations.c.state).where(reservations.c.order_id == order_id))
    return state


async def _put_back(connection: AsyncConnection, item: str, units: int) -> None:
    new = insert(stock).values(item=item, units=units)
    more = {"units": stock.c.units + new.excluded.units}
    await connection.execute(new.on_conflict_do_update(index_elements=["item"], set_=more))


async def _book(connection: AsyncConnection, order_id: str, kind: str, cents: int) -> None:
    name = {"order_id": order_id, "kind": kind}
    new = insert(transactions).values(**name, cents=cents).on_conflict_do_nothing()
    if (await connection.execute(new)).rowcount == 0:
        booked = transactions.c
        query = select(booked.cents).where(booked.order_id == order_id, booked.kind == kind)
        if await connection.scalar(query) != cents:
            raise changed(kind, order_id)
        return
    into_bank = cents if kind == "charge" else -cents
    both = [{**name, "account": "bank", "cents": into_bank}, {**name, "account": "sales", "cents": -into_bank}]
    await connection.execute(insert(postings), both)


def _reserved(condition: ColumnElement[bool]) -> Select[Any]:
    return select(reservations.c.item, _whole(func.sum(reservations.c.units))).where(condition)


def _whole(total: ColumnElement[Any]) -> ColumnElement[int]:
    """PostgreSQL sums whole numbers to a decimal one."""
    return cast(total, BigInteger)


async def _units(connection: AsyncConnection, query: Select[Any]) -> dict[str, int]:
    """A sum by its name, which is the first column."""
    return dict((await connection.execute(query.group_by(query.selected_columns[0]))).all())
