"""docs/operating.md, "Changing the model", followed to the letter while the old release serves."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.faults.harness.producers import Ledger, Trickle
from tests.fixtures.databases import REPOSITORY, Database
from tests.fixtures.traffic import Traffic
from tests.fixtures.waiting import eventually
from tests.fixtures.walks import walks
from tests.integration.documents.checkout import Checkout, ask
from tests.integration.documents.test_adding_a_view import (
    SHIPMENTS,
    newest_shipments,
    shipment_events,
)
from tests.integration.rebuild.parts import (
    Log,
    builds,
    live,
    offsets,
    value,
    wait_until_live_includes,
)
from views.positions import parse_position

(RECIPE,) = walks((REPOSITORY / "docs" / "operating.md").read_text("utf-8"), "Changing the model")
COMMANDS: Final = [block.text for block in RECIPE.blocks if block.language == "sh"]
(ANOTHER_KEY,) = walks(
    (REPOSITORY / "docs" / "operating.md").read_text("utf-8"), "Changing a view's key"
)
KEY_COMMANDS: Final = [block.text for block in ANOTHER_KEY.blocks if block.language == "sh"]
CHANGED: Final = {"orders.captured_count", "customer_totals.ordered", "daily_sales.ordered"}
WAIT_S: Final = 60.0
OLD: Final = """{ orders(first: 20) { nodes { orderId version paid paymentCount } }
  customerTotals(first: 20) { nodes { customerId ordered } } position { token build } }"""
NEW: Final = "{ orders(first: 100) { nodes { orderId capturedCount } } position { token } }"
BY_ORDER: Final = "{ shipments(first: 100) { nodes { orderId shipmentId version } } }"
WRONG: Final = """
SELECT count(*) FROM views.orders o WHERE captured_count <>
  (SELECT count(*) FROM views.payments p
   WHERE p.order_id = o.order_id AND p.status = 'CAPTURED')"""
WRONG_SUMS: Final = """
SELECT count(*) FROM views.customer_totals t WHERE ordered <>
  (SELECT coalesce(sum(amount - coalesce(discount, 0))
     FILTER (WHERE status NOT IN ('CANCELLED', 'UNKNOWN')), 0)
   FROM views.orders o WHERE (o.customer_id, o.currency) = (t.customer_id, t.currency))"""


@dataclass(slots=True)
class Reader:
    """Somebody who asks the API again and again."""

    client: httpx.Client
    query: str
    answers: list[Any] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until `stop`."""
        while not self.stop.wait(0.05):
            try:
                body = self.client.post("/graphql", json={"query": self.query}).json()
            except (httpx.HTTPError, ValueError) as error:
                self.failed.append(error)
                return
            (self.failed if "errors" in body else self.answers).append(body)

    def builds(self) -> list[str]:
        """The builds that answered, one after the other."""
        seen = [answer["data"]["position"]["build"] for answer in self.answers]
        return [name for at, name in enumerate(seen) if at == 0 or seen[at - 1] != name]


@contextmanager
def reading(client: httpx.Client) -> Iterator[Reader]:
    """A reader under way."""
    reader = Reader(client, OLD)
    thread = threading.Thread(target=reader.run, name="reader")
    thread.start()
    try:
        yield reader
    finally:
        reader.stop.set()
        thread.join()


@contextmanager
def working(checkout: Checkout) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of a release."""
    process = checkout.start("ingest")
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(WAIT_S) == 0


@pytest.fixture
def flowing(log: Log) -> Iterator[None]:
    """Hostile traffic at a steady pace, all the time."""
    traffic = Traffic(seed=501, orders=100_000, ids=log.ids, prefix="model", woven=60)
    trickle = Trickle(log.bootstrap, traffic, Ledger(), per_s=60)
    yield
    trickle.stop()


@pytest.mark.usefixtures("flowing")
def test_the_model_changes_while_the_old_release_goes_on_serving(
    log: Log, shop: Database, tmp_path: Path
) -> None:
    migrate, rebuild, swap, verify, drop = COMMANDS
    settings = {**log.environment(shop), "VIEWKEEPER_GROUP_ID": shop.name}
    old, new = (Checkout(tmp_path / name, settings) for name in ("old", "new"))
    with ExitStack() as old_worker:
        old_worker.enter_context(working(old))  # starts beside the API, which is waited for
        with old.api(shop) as client, reading(client) as reader:
            wait_until_live_includes(shop, log.end())
            for edit in RECIPE.edits:
                edit.apply(new.folder)
            new.shell(migrate)
            report = json.loads(new.shell(rebuild.strip() + " --json"))
            before = sum(offsets(shop, "build_1").values())
            eventually(
                lambda: sum(offsets(shop, live(shop)).values()) > before,
                WAIT_S,
                "the old worker goes on after the migration and the rebuild",
            )
            old_worker.close()
            assert report["equal"] is True
            declared = {
                f"{view['view']}.{name}" for view in report["views"] for name in view["declared"]
            }
            assert declared == CHANGED
            assert builds(shop) == {"build_1": "live", "build_2": "ready"}
            new.shell(swap)
            with working(new), new.api(shop) as newer:
                wait_until_live_includes(shop, log.end())
                counts = [row["capturedCount"] for row in ask(newer, NEW)["orders"]["nodes"]]
            eventually(
                lambda: "build_2" in reader.builds(),
                WAIT_S,
                "the old API has answered from the new",
            )
    assert reader.failed == []
    assert reader.builds() == ["build_1", "build_2"]
    assert max(counts) > 0
    new.shell(verify)
    assert value(shop, WRONG) == value(shop, WRONG_SUMS) == 0
    assert value(shop, "SELECT count(*) FROM views.orders WHERE status = 'UNKNOWN'") > 0
    new.shell(drop)
    assert builds(shop) == {"build_2": "live"}


@pytest.mark.proof
def test_what_was_not_declared_stops_the_swap(log: Log, shop: Database, tmp_path: Path) -> None:
    migrate, rebuild, *_ = COMMANDS
    new = Checkout(tmp_path / "new", log.environment(shop))
    for edit in RECIPE.edits:
        edit.apply(new.folder)
    new.shell(migrate)
    fewer = rebuild.replace("--no-swap", "").replace("--except daily_sales.ordered", "--json")
    report = json.loads(new.shell(fewer.strip() + " || test $? = 1"))
    views = {view["view"]: view for view in report["views"]}
    assert report["swapped"] is None
    assert set(views["daily_sales"]["columns"]) == {"ordered"}
    assert live(shop) == "build_1"


@pytest.mark.proof
def test_a_view_gets_another_key_while_the_old_release_goes_on(
    log: Log, shop: Database, tmp_path: Path
) -> None:
    expand, rebuild, swap, prove = KEY_COMMANDS
    settings = {**log.environment(shop), "VIEWKEEPER_GROUP_ID": shop.name}
    old = Checkout(tmp_path / "old", settings)
    old.follow(SHIPMENTS)
    events = list(shipment_events([f"order-{number}" for number in range(100)]))
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events[:-20]))
    old.viewkeeper("ingest", "--until", old.produce(str(tmp_path / "events.jsonl")))
    new = Checkout(tmp_path / "new", settings)
    shutil.copytree(old.folder, new.folder, dirs_exist_ok=True)
    with working(old):
        for edit in ANOTHER_KEY.edits:
            edit.apply(new.folder)
        new.shell(expand)
        refused = new.shell("! viewkeeper ingest 2>&1")
        assert "does not hold shipments_by_order" in refused
        report = json.loads(new.shell(rebuild.strip() + " --json"))
        (tmp_path / "later.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events[-20:]))
        wait_until_live_includes(
            shop, parse_position(old.produce(str(tmp_path / "later.jsonl")))
        )  # the old worker goes on
    assert (report["equal"], report["swapped"]) == (True, None)
    assert any(note.startswith("shipments_by_order is new") for note in report["notes"])
    new.shell(swap)
    with working(new), new.api(shop) as client:
        nodes = ask(client, BY_ORDER)["shipments"]["nodes"]
    shown = [(node["orderId"], node["shipmentId"], int(node["version"])) for node in nodes]
    expected = newest_shipments(events)
    assert shown == sorted((row[2], key[0], row[0]) for key, row in expected.items())
    new.shell(prove)
    assert builds(shop) == {"build_2": "live"}
