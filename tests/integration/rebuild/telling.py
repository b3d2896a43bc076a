"""One order whose versions are told one by one, where a test wants to know which came when."""

from dataclasses import dataclass, field

from tests.fixtures.databases import Database
from tests.integration.dead_letters.scene import Scene
from tests.integration.rebuild.parts import Log

FIRST_DAY_MICROS = 1_767_225_600_000_000
MICROS_PER_DAY = 86_400_000_000


@dataclass(slots=True)
class Teller:
    """Tells an order's versions, each for another customer, on another day."""

    log: Log
    shop: Database
    order_id: str
    version: int = 0
    scene: Scene = field(init=False)

    def __post_init__(self) -> None:
        self.scene = scene_of(self.log, self.shop)

    def tell(self) -> None:
        """The next version."""
        self.version += 1
        first = 1_767_225_600_000_000
        self.log.send(
            [
                self.scene.order(
                    self.order_id,
                    version=self.version,
                    customer_id=f"{self.order_id}-{self.version}",
                    placed_at=first + self.version * MICROS_PER_DAY,
                )
            ]
        )


def scene_of(log: Log, shop: Database) -> Scene:
    """Who tells events by hand."""
    return Scene(dsn=shop.dsn, bootstrap=log.bootstrap, registry=log.registry, ids=log.ids)
