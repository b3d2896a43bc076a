"""The peer of the serving benchmark: a stock Strawberry service on the same tables.

What a good developer writes by the documentation of its parts: Strawberry types, SQLAlchemy's async
ORM over psycopg, a DataLoader per relation and request, keyset pages. Same queries, same rows. Runs
in the environment of the peers (`requirements-bench.lock`), so it imports nothing of ours.
"""

import base64
import os
from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, Self

import strawberry
from sqlalchemy import JSON, TIMESTAMP, Numeric, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.dataloader import DataLoader

DATABASE_VARIABLE: Final = "BENCH_STOCK_DATABASE_URL"
SCHEMA: Final = "build_1"
LARGEST_PAGE: Final = 1000
POOL_SIZE: Final = 16

engine = create_async_engine(
    os.environ[DATABASE_VARIABLE].replace("postgresql://", "postgresql+psycopg://", 1),
    pool_size=POOL_SIZE,
    max_overflow=0,
)
new_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The mapped tables."""

    type_annotation_map = {  # noqa: RUF012
        datetime: TIMESTAMP(timezone=True),
        Decimal: Numeric,
        list[dict[str, Any]]: JSON,
    }


class OrderRow(Base):
    """A row of orders."""

    __tablename__ = "orders"
    __table_args__ = {"schema": SCHEMA}  # noqa: RUF012

    order_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    status: Mapped[str]
    customer_id: Mapped[str]
    currency: Mapped[str]
    amount: Mapped[Decimal]
    discount: Mapped[Decimal | None]
    items: Mapped[list[dict[str, Any]]]
    placed_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    paid: Mapped[Decimal]
    refunded: Mapped[Decimal]
    outstanding: Mapped[Decimal]
    visible: Mapped[bool]


class PaymentRow(Base):
    """A row of payments."""

    __tablename__ = "payments"
    __table_args__ = {"schema": SCHEMA}  # noqa: RUF012

    order_id: Mapped[str] = mapped_column(primary_key=True)
    payment_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    status: Mapped[str]
    currency: Mapped[str]
    amount: Mapped[Decimal]
    refunded_amount: Mapped[Decimal]
    method: Mapped[str]
    occurred_at: Mapped[datetime]


class Loaders:
    """The data loaders of one request."""

    @cached_property
    def payments(self) -> DataLoader[str, list[PaymentRow]]:
        """The payments of orders."""
        return DataLoader(load_fn=_payments_of)


Context = dict[str, Loaders]
Info = strawberry.Info[Context, None]


async def _payments_of(order_ids: list[str]) -> list[list[PaymentRow]]:
    wanted = (
        select(PaymentRow)
        .where(PaymentRow.order_id.in_(order_ids))
        .order_by(PaymentRow.order_id, PaymentRow.payment_id)
    )
    async with new_session() as session:
        rows = await session.scalars(wanted)
        found = defaultdict(list)
        for row in rows:
            found[row.order_id].append(row)
    return [found[order_id] for order_id in order_ids]


@strawberry.enum
class OrderStatus(StrEnum):
    """Where an order stands."""

    PLACED = "PLACED"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"


@strawberry.type
class PageInfo:
    """Where a page ends."""

    has_next_page: bool
    end_cursor: str | None


@strawberry.type
class Payment:
    """A payment."""

    payment_id: str
    version: int
    status: str
    currency: str
    amount: Decimal
    refunded_amount: Decimal
    method: str
    occurred_at: datetime

    @classmethod
    def of(cls, row: PaymentRow) -> Self:
        """From its row."""
        return cls(
            payment_id=row.payment_id,
            version=row.version,
            status=row.status,
            currency=row.currency,
            amount=row.amount,
            refunded_amount=row.refunded_amount,
            method=row.method,
            occurred_at=row.occurred_at,
        )


@strawberry.type
class PaymentConnection:
    """A page of payments."""

    nodes: list[Payment]
    page_info: PageInfo


@strawberry.type
class Item:
    """A line of an order."""

    sku: str
    quantity: int
    unit_price: Decimal


@strawberry.type
class Order:
    """An order."""

    order_id: str
    version: int
    status: OrderStatus
    customer_id: str
    currency: str
    amount: Decimal
    discount: Decimal | None
    items: list[Item]
    placed_at: datetime
    updated_at: datetime
    paid: Decimal
    refunded: Decimal
    outstanding: Decimal

    @classmethod
    def of(cls, row: OrderRow) -> Self:
        """From its row."""
        return cls(
            order_id=row.order_id,
            version=row.version,
            status=OrderStatus(row.status),
            customer_id=row.customer_id,
            currency=row.currency,
            amount=row.amount,
            discount=row.discount,
            items=[
                Item(
                    sku=item["sku"],
                    quantity=item["quantity"],
                    unit_price=Decimal(str(item["unit_price"])),
                )
                for item in row.items
            ],
            placed_at=row.placed_at,
            updated_at=row.updated_at,
            paid=row.paid,
            refunded=row.refunded,
            outstanding=row.outstanding,
        )

    @strawberry.field
    async def payments(self, info: Info, first: int = 20) -> PaymentConnection:
        """The payments of this order."""
        rows = await info.context["loaders"].payments.load(self.order_id)
        page = [Payment.of(row) for row in rows[:first]]
        cursor = _cursor(page[-1].payment_id) if page else None
        return PaymentConnection(
            nodes=page, page_info=PageInfo(has_next_page=len(rows) > first, end_cursor=cursor)
        )


@strawberry.type
class OrderConnection:
    """A page of orders."""

    nodes: list[Order]
    page_info: PageInfo


@strawberry.input
class OrderStatusFilter:
    """Comparisons with a status."""

    eq: OrderStatus


@strawberry.input
class OrderFilter:
    """Which orders."""

    status: OrderStatusFilter | None = None


@strawberry.type
class Query:
    """The root."""

    @strawberry.field
    async def order(self, order_id: str) -> Order | None:
        """One order."""
        wanted = select(OrderRow).where(OrderRow.order_id == order_id, OrderRow.visible)
        async with new_session() as session:
            row = await session.scalar(wanted)
        return Order.of(row) if row else None

    @strawberry.field
    async def orders(
        self, first: int = 20, after: str | None = None, where: OrderFilter | None = None
    ) -> OrderConnection:
        """A page of orders by their id."""
        size = min(first, LARGEST_PAGE)
        wanted = select(OrderRow).where(OrderRow.visible).order_by(OrderRow.order_id)
        if where and where.status:
            wanted = wanted.where(OrderRow.status == where.status.eq.value)
        if after is not None:
            wanted = wanted.where(OrderRow.order_id > _key(after))
        async with new_session() as session:
            rows = (await session.scalars(wanted.limit(size + 1))).all()
        page = [Order.of(row) for row in rows[:size]]
        cursor = _cursor(page[-1].order_id) if page else None
        return OrderConnection(
            nodes=page, page_info=PageInfo(has_next_page=len(rows) > size, end_cursor=cursor)
        )


def _cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _key(cursor: str) -> str:
    return base64.urlsafe_b64decode(cursor).decode()


class Endpoint(GraphQL[Context, None]):
    """Strawberry's own endpoint with fresh loaders for each request."""

    async def get_context(
        self,
        request: Request | WebSocket,  # noqa: ARG002
        response: Response | WebSocket,  # noqa: ARG002
    ) -> Context:
        """The context of one request."""
        return {"loaders": Loaders()}


schema = strawberry.Schema(Query)
app = Starlette()
app.mount("/graphql", Endpoint(schema))
