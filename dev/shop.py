"""Sample traffic that looks like a shop: orders and payments, with everything that goes wrong.

Stands apart from the tests' hostile traffic: this one is for people to look at. Customers and
goods have names, most stories end well, and about one record in a hundred is a duplicate, comes
late, or is poison. The same seed and start time give the same records, byte for byte.
"""

import random
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any, Final

Content = dict[str, Any]
Encode = Callable[[Mapping[str, Any]], bytes]

ORDERS: Final = "orders"
PAYMENTS: Final = "payments"
CENT: Final = Decimal("0.01")
LONGEST_STORY: Final = timedelta(hours=4)
"""No story takes longer, so none that begins so long ago ends in the future."""

# What one unit of each currency is to a euro, roughly, and how often it is paid in.
CURRENCIES: Final[Mapping[str, tuple[Decimal, int]]] = {
    "EUR": (Decimal(1), 45),
    "USD": (Decimal("1.10"), 30),
    "GBP": (Decimal("0.85"), 15),
    "CHF": (Decimal("0.95"), 6),
    "JPY": (Decimal(160), 4),
}
GOODS: Final[Mapping[str, Decimal]] = {
    "mug-stoneware-blue": Decimal("14.90"),
    "teapot-cast-iron-1l": Decimal("59.00"),
    "kettle-gooseneck-steel": Decimal("84.50"),
    "coffee-beans-sidamo-1kg": Decimal("27.80"),
    "coffee-filter-v60-100pc": Decimal("7.20"),
    "linen-towel-set-3": Decimal("24.00"),
    "lamp-desk-brass": Decimal("129.00"),
    "notebook-a5-dotted": Decimal("11.50"),
    "fountain-pen-fine": Decimal("38.00"),
    "ink-bottle-midnight-50ml": Decimal("13.40"),
    "headphones-over-ear": Decimal("189.00"),
    "charger-usb-c-65w": Decimal("42.90"),
    "backpack-canvas-20l": Decimal("96.00"),
    "rain-jacket-unisex-m": Decimal("149.00"),
    "wool-socks-2-pairs": Decimal("18.60"),
    "yoga-mat-cork": Decimal("64.00"),
    "chess-set-walnut": Decimal("112.00"),
    "puzzle-harbour-1000": Decimal("21.90"),
}
# A line of names reads better than a column of them.
FIRST_NAMES: Final = (  # noqa: SIM905
    "amina bram carla dmitri elif farid greta hiro ines jonas kofi lucia mira nadia oskar priya "
    "quentin rosa sven tomoko umar vera wanda xavier yara zoe"
).split()
LAST_NAMES: Final = (  # noqa: SIM905
    "almeida brandt costa dubois eriksen fontana garcia haddad ito jensen kowalski larsen "
    "mensah novak okafor petrov rossi sato tanaka ulrich vega weber yilmaz zimmer"
).split()
METHODS: Final = ("card", "card", "card", "paypal", "transfer", "voucher")


@dataclass(frozen=True, slots=True)
class Record:
    """A record to be produced. `kind` says what it was made for."""

    topic: str
    key: bytes | None
    value: bytes | None
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How often things happen; per order unless said otherwise."""

    payment_first: float = 0.10
    cancelled: float = 0.06
    refunded: float = 0.08
    declined: float = 0.05
    other_currency: float = 0.01
    duplicate: float = 0.05
    late: float = 0.04
    removed: float = 0.004
    poison: float = 0.003
    """Per record."""


@dataclass(slots=True)
class _Story:
    """What is still to be told of one order."""

    order_id: str
    steps: list[tuple[str, Content | None, str]] = field(default_factory=list)


class Shop:
    """An endless shop: iterate for records, or take `orders(n)` and stop.

    `encoders` turns the content of each topic's events into values. `prefix` keeps the order ids
    of two shops apart.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encode],
        *,
        seed: int = 0,
        start_at: datetime | None = None,
        prefix: str = "",
        open_orders: int = 40,
        shares: Shares | None = None,
    ) -> None:
        self._encoders = encoders
        self._rng = random.Random(seed)
        self._now_at = start_at or datetime.now(UTC) - LONGEST_STORY
        self._prefix = prefix
        self._open_orders = open_orders
        self._shares = shares or Shares()
        self.begun = 0
        """How many orders have begun to be told."""

    def __iter__(self) -> Iterator[Record]:
        """Records without end."""
        return self._told(count(1))

    def orders(self, number: int) -> Iterator[Record]:
        """The records of so many orders, about six of each."""
        return self._told(iter(range(1, number + 1)))

    def _told(self, numbers: Iterator[int]) -> Iterator[Record]:
        """Stories run beside each other: each keeps its own order of events."""
        told = [self._story(n) for _, n in zip(range(self._open_orders), numbers, strict=False)]
        while told:
            at = self._rng.randrange(len(told))
            story = told[at]
            if self._happens(self._shares.poison):
                yield self._poison(story.order_id)
            yield self._record(story)
            if not story.steps:
                following = next(numbers, None)
                if following is None:
                    told.pop(at)
                else:
                    told[at] = self._story(following)

    def _record(self, story: _Story) -> Record:
        topic, content, kind = story.steps.pop(0)
        value = None if content is None else self._encoders[topic](content)
        return Record(topic, story.order_id.encode(), value, kind)

    def _happens(self, share: float) -> bool:
        return self._rng.random() < share

    def _story(self, number: int) -> _Story:
        """One order from the basket to the door, and what happens on the way."""
        self.begun += 1
        self._now_at += timedelta(milliseconds=self._rng.randrange(20, 60))
        story = _Story(f"{self._prefix}order-{number:06d}")
        first = self._basket(story.order_id)
        orders = self._order_versions(first)
        payments = self._payment_versions(first, cancelled=orders[-1]["status"] == "CANCELLED")
        order_steps = [(ORDERS, content, "event") for content in orders]
        payment_steps = [(PAYMENTS, content, "event") for content in payments]
        if self._happens(self._shares.payment_first):
            story.steps = [*payment_steps[:1], *order_steps[:1]]
        else:
            story.steps = [*order_steps[:1], *payment_steps[:1]]
        story.steps += self._shuffled(order_steps[1:], payment_steps[1:])
        self._go_wrong(story, first)
        return story

    def _basket(self, order_id: str) -> Content:
        rate_by_currency = {name: rate for name, (rate, _) in CURRENCIES.items()}
        weights = [weight for _, weight in CURRENCIES.values()]
        currency = self._rng.choices(list(rate_by_currency), weights)[0]
        rate = rate_by_currency[currency]
        skus = self._rng.sample(list(GOODS), self._rng.choice((1, 1, 2, 2, 3, 4)))
        lines = [
            (sku, self._rng.choice((1, 1, 1, 2, 3)), (GOODS[sku] * rate).quantize(CENT))
            for sku in skus
        ]
        amount = sum((quantity * price for _, quantity, price in lines), Decimal(0))
        percent = self._rng.choice((0, 0, 0, 0, 5, 10, 20))
        placed_at = self._now_at - timedelta(hours=self._rng.choice((0, 0, 0, 0, 7, 30, 60, 110)))
        return {
            "event_id": self._event_id(),
            "order_id": order_id,
            "version": 1,
            "status": "PLACED",
            "customer_id": self._customer(),
            "currency": currency,
            "amount": amount,
            "discount": (amount * percent / 100).quantize(CENT) if percent else None,
            "items": [{"sku": s, "quantity": n, "unit_price": p} for s, n, p in lines],
            "placed_at": placed_at,
            "occurred_at": placed_at,
        }

    def _customer(self) -> str:
        """Some customers come often: the lower numbers."""
        number = int(self._rng.random() ** 2 * len(FIRST_NAMES) * len(LAST_NAMES))
        first, last = divmod(number, len(LAST_NAMES))
        return f"{FIRST_NAMES[first]}.{LAST_NAMES[last]}"

    def _order_versions(self, first: Content) -> list[Content]:
        """How far the order gets: some are still under way when the traffic ends."""
        walk = ("CONFIRMED", "SHIPPED", "DELIVERED")[: self._rng.choice((1, 2, 3, 3, 3))]
        if self._happens(self._shares.cancelled):
            walk = (*walk[:1], "CANCELLED")
        versions = [first]
        for status in walk:
            versions.append(self._next(versions[-1], status=status))
        return versions

    def _payment_versions(self, order: Content, *, cancelled: bool) -> list[Content]:
        versions: list[Content] = []
        if self._happens(self._shares.declined):
            versions += [self._payment(order, 1) | {"status": "FAILED"}]
        payment = self._payment(order, len(versions) + 1)
        versions.append(payment)
        if cancelled and self._happens(0.5):
            versions.append(self._next(payment, status="VOIDED"))
            return versions
        captured = self._next(payment, status="CAPTURED")
        versions.append(captured)
        if cancelled:
            versions.append(self._refund(captured, captured["amount"]))
        elif self._happens(self._shares.refunded):
            part = (captured["amount"] / self._rng.choice((1, 2, 4))).quantize(CENT)
            versions.append(self._refund(captured, part))
        return versions

    def _payment(self, order: Content, number: int) -> Content:
        currency, amount = order["currency"], order["amount"] - (order["discount"] or Decimal(0))
        if self._happens(self._shares.other_currency):
            currency = "USD" if currency != "USD" else "EUR"
        return {
            "event_id": self._event_id(),
            "payment_id": f"{order['order_id']}-p{number}",
            "order_id": order["order_id"],
            "version": 1,
            "status": "AUTHORIZED",
            "currency": currency,
            "amount": amount,
            "refunded_amount": Decimal(0),
            "method": self._rng.choice(METHODS),
            "occurred_at": order["occurred_at"] + timedelta(seconds=self._rng.randrange(1, 90)),
        }

    def _refund(self, captured: Content, amount: Decimal) -> Content:
        return self._next(captured, status="REFUNDED") | {"refunded_amount": amount}

    def _next(self, content: Content, *, status: str) -> Content:
        later = timedelta(seconds=self._rng.randrange(30, 3_600))
        return content | {
            "event_id": self._event_id(),
            "version": content["version"] + 1,
            "status": status,
            "occurred_at": content["occurred_at"] + later,
        }

    def _event_id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def _shuffled(
        self,
        one: list[tuple[str, Content, str]],
        other: list[tuple[str, Content, str]],
    ) -> list[tuple[str, Content | None, str]]:
        """Both in their own order, run into each other."""
        left, right = list(one), list(other)
        mixed: list[tuple[str, Content | None, str]] = []
        while left or right:
            take = left if left and (not right or self._rng.random() < 0.5) else right
            mixed.append(take.pop(0))
        return mixed

    def _go_wrong(self, story: _Story, first: Content) -> None:
        """A duplicate, a version that comes late, an order that is taken away."""
        steps = story.steps
        if self._happens(self._shares.duplicate):
            topic, content, _ = steps[self._rng.randrange(len(steps))]
            steps.append((topic, content, "duplicate"))
        if self._happens(self._shares.late):
            steps.append((ORDERS, first, "late"))
        if self._happens(self._shares.removed):
            steps.append((ORDERS, None, "tombstone"))

    def _poison(self, order_id: str) -> Record:
        """One record that no view can take, each kind in its turn of the dice."""
        key = order_id.encode()
        good = self._basket(order_id)
        orders = self._encoders[ORDERS]
        value = orders(good)
        made: list[tuple[str, bytes | None, bytes | None, str]] = [
            (ORDERS, key, b"", "poison: empty"),
            (ORDERS, key, b'{"order_id": "' + key + b'"}', "poison: JSON instead of Avro"),
            (ORDERS, key, value[: len(value) // 2], "poison: cut off"),
            (ORDERS, key, value + b"\x00\x00", "poison: bytes left over"),
            (ORDERS, key, b"\x00" + struct.pack(">I", 999_999) + value[5:], "poison: schema id"),
            (ORDERS, None, value, "poison: no key"),
            (ORDERS, b"somebody-else", value, "poison: key of another order"),
            (ORDERS, key, orders(good | {"currency": "euro"}), "poison: currency"),
            (ORDERS, key, orders(good | {"version": 0}), "poison: version"),
            (PAYMENTS, key, None, "poison: payment taken away"),
        ]
        return Record(*self._rng.choice(made))
