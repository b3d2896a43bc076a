"""One order whose versions are told one by one, where a test wants to know which came when."""

from dataclasses import dataclass

from tests.fixtures.databases import Database
from tests.integration.dead_letters.scene import Scene
from tests.integration.rebuild.parts import Log

FIRST_DAY_MICROS = 1_767_225_600_000_000
MICROS_PER_DAY = 86_400_000_000


@dataclass(slots=True)
class Teller:
    """Tells an order's versions, each for another customer, on another day."""

    scene: Scene
    order_id: str
    version: int = 0

    def tell(self) -> None:
        """The next version."""
        self.version += 1
        first = 1_767_225_600_000_000
        self.scene.tell(
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
