"""Compaction on `orders`, whose key is its identity: what is gone was superseded anyway."""

from __future__ import annotations

from typing import Final

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.faults.harness.ground import Ground
from tests.faults.oracle import read_log
from tests.fixtures.waiting import PATIENCE_S, eventually

GAP: Final = "offset removed by compaction before it was read"
_COMPACTED: Final = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.01",
    "segment.ms": "500",
    "min.compaction.lag.ms": "0",
    # A segment ends by the times of its records, and those of the traffic lie near each other.
    "message.timestamp.type": "LogAppendTime",
}


def _compact(ground: Ground) -> None:
    admin = ground.admin()  # must outlive the call: its end cancels what it was asked
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in _COMPACTED.items()
    ]
    wanted = ConfigResource(ResourceType.TOPIC, "orders", incremental_configs=entries)
    for done in admin.incremental_alter_configs([wanted]).values():
        done.result()


def _gaps(ground: Ground) -> int:
    """How many offsets hold nothing any more."""
    records, ends = read_log(ground.place.bootstrap, ["orders"])
    return sum(ends.values()) - len(records)


@pytest.mark.proof
def test_what_compaction_took_out_before_it_was_read_is_missed_by_nobody(ground: Ground) -> None:
    _compact(ground)
    for prefix in ("first", "second"):  # a new record rolls the segment, which then is compacted
        traffic = ground.traffic(300, seed=87, prefix=prefix, poison=0.0)
        ground.send(r for r in traffic if r.key)
        eventually(lambda: _rolled(ground), PATIENCE_S, "the cleaner has been there")
    ground.ledger.compacted()
    ground.bites.bit(GAP, _gaps(ground))
    ground.worker()
    ground.must_be_right()


def _rolled(ground: Ground) -> bool:
    """Send one more, so that segments end, until something is gone."""
    traffic = ground.traffic(1, seed=88, prefix="roll", poison=0.0)
    ground.send(r for r in traffic if r.key)
    return _gaps(ground) > 0
