"""Dead letters reach the topic `<topic>.dlq` as they came, at least once, and hold up nothing."""

import threading
from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from ingest.outbox import Outbox
from tests.fixtures.waiting import eventually
from tests.integration.dead_letters.scene import Scene
from tests.integration.ingest.running import WAIT_S


def _more(consumer: Consumer, found: list[Any]) -> list[Any]:
    """What was found, with what comes within half a second."""
    found += [message for message in consumer.consume(500, 0.5) if message.error() is None]
    return found


def _sent(scene: Scene, count: int) -> list[Any]:
    """The first messages of orders.dlq, all of them: at least `count`, read from the start."""
    consumer = Consumer(
        {
            "bootstrap.servers": scene.bootstrap,
            "group.id": "reader of dead letters",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    found: list[Any] = []
    consumer.subscribe(["orders.dlq"])
    try:
        eventually(
            lambda: len(_more(consumer, found)) >= count,
            WAIT_S,
            f"{count} dead letters in orders.dlq",
        )
        found.extend(m for m in consumer.consume(500, 1.0) if m.error() is None)
    finally:
        consumer.close()
    return found


def _unsent(scene: Scene) -> int:
    return int(scene.query("SELECT count(*) FROM ingest.outbox WHERE sent_at IS NULL")[0][0])


def _wait_sent(scene: Scene) -> None:
    eventually(lambda: _unsent(scene) == 0, WAIT_S, "the outbox is sent")


def _outbox(scene: Scene, *, may_create: bool = True) -> Outbox:
    options = scene.settings().admin_options()
    return Outbox(
        scene.dsn,
        "a test",
        producer_options=options,
        admin_options=options,
        may_create=may_create,
    )


def test_a_dead_letter_is_sent_with_its_bytes_its_headers_and_what_is_known_of_it(
    scene: Scene,
) -> None:
    producer = Producer({"bootstrap.servers": scene.bootstrap, "log_level": 0})
    value = b"\x00\x00\x00\x00\x01\xff"
    producer.produce(
        "orders", value, b"key", headers=[("trace", b"\x00\xfe"), ("trace", None)], timestamp=1_000
    )
    assert producer.flush(WAIT_S) == 0
    scene.worker()
    scene.reach({("orders", 0): 1})
    (message,) = _sent(scene, 1)
    assert (message.key(), message.value()) == (b"key", value)
    headers = message.headers()
    assert headers[:2] == [("trace", b"\x00\xfe"), ("trace", None)]
    ours = {name: text.decode() for name, text in headers[2:]}
    (topic_id,) = scene.query("SELECT topic_id FROM ingest.dead_letters")[0]
    assert ours == {
        "viewkeeper-id": f"{topic_id}:0:0",
        "viewkeeper-reason": scene.dead()[0][2],
        "viewkeeper-topic": "orders",
        "viewkeeper-partition": "0",
        "viewkeeper-offset": "0",
        "viewkeeper-attempts": str(scene.query("SELECT attempts FROM ingest.dead_letters")[0][0]),
    }
    _wait_sent(scene)


def test_senders_at_the_same_time_do_not_send_the_same_row(scene: Scene) -> None:
    _bury(scene, 600)
    threads = [threading.Thread(target=_drain, args=(scene,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    messages = _sent(scene, 600)
    assert len(messages) == 600
    assert len({dict(message.headers())["viewkeeper-id"] for message in messages}) == 600


def _drain(scene: Scene) -> None:
    with closing(_outbox(scene)) as outbox:
        while _unsent(scene):
            outbox.turn()


def _bury(scene: Scene, count: int) -> None:
    """So many dead letters of topic orders, as a transaction leaves them."""
    scene.query(
        'WITH made AS (INSERT INTO ingest.dead_letters (topic, topic_id, partition, "offset",'
        " key, value, recorded_at, reason, detail, attempts) SELECT 'orders', 'id', 0, n, 'k', 'v',"
        " now(), 'BAD_MAGIC', '', 1 FROM generate_series(1, %s) n RETURNING id)"
        " INSERT INTO ingest.outbox (dead_letter_id) SELECT id FROM made",
        count,
    )


def test_without_the_topic_and_the_right_to_make_it_ingest_goes_on_and_the_rows_wait(
    scene: Scene,
) -> None:
    ends = scene.tell(scene.bad(3), scene.good(20))
    worker = scene.worker(create_dead_letter_topics=False)
    scene.reach(ends)
    assert worker.ready()["ready"]
    assert _unsent(scene) == 3
    admin = AdminClient({"bootstrap.servers": scene.bootstrap})
    assert "orders.dlq" not in admin.list_topics(timeout=WAIT_S).topics
    new = NewTopic("orders.dlq", num_partitions=1, replication_factor=1)
    admin.create_topics([new])["orders.dlq"].result(WAIT_S)
    _wait_sent(scene)


def test_one_letter_that_the_broker_refuses_does_not_hold_up_the_others(scene: Scene) -> None:
    admin = AdminClient({"bootstrap.servers": scene.bootstrap})
    small = NewTopic(
        "orders.dlq", num_partitions=1, replication_factor=1, config={"max.message.bytes": "2000"}
    )
    admin.create_topics([small])["orders.dlq"].result(WAIT_S)
    _bury(scene, 3)
    scene.query(
        "UPDATE ingest.dead_letters SET value = convert_to(repeat('x', 4000), 'UTF8')"
        ' WHERE "offset" = 2'
    )
    with closing(_outbox(scene)) as outbox:
        assert outbox.turn() == 3
        assert _unsent(scene) == 1
        assert outbox.turn() == 0
