"""Rows as objects in memory, with SQLAlchemy."""

from __future__ import annotations

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool


class Base(DeclarativeBase):
    pass


class Sale(Base):
    __tablename__ = "sale"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[int]
    price: Mapped[int]


def work(seed: int) -> list[tuple[int, int]]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Sale(shop=n % 5, price=n * seed % 100) for n in range(8))
        session.flush()
        totals = select(Sale.shop, func.sum(Sale.price)).group_by(Sale.shop).order_by(Sale.shop)
        found = [(shop, total) for shop, total in session.execute(totals)]
    engine.dispose()
    return found


def items() -> list[int]:
    return list(range(60))
