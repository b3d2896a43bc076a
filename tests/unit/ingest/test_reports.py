"""What the Kafka client reports reaches the log, and does not flood it."""

from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from ingest.consume import SAID_AGAIN_S, Reports


def test_the_same_problem_is_told_once_in_a_while_and_another_at_once() -> None:
    now_s = 100.0
    reports = Reports(lambda: now_s)
    away, down = KafkaError(KafkaError._TRANSPORT), KafkaError(KafkaError._ALL_BROKERS_DOWN)
    with capture_logs() as told:
        for _ in range(20):
            reports(away)
        reports(down)
        assert [one["error"] for one in told] == [away.str(), down.str()]
        now_s += SAID_AGAIN_S
        reports(away)
    assert len(told) == 3
