"""Background traffic at a steady rate: events of one shop, so many a second, until asked to end.

A program of its own so that it shares no interpreter with the probe that measures beside it.
"""

import argparse
import signal
import sys
import threading
import time

from bench.eventlog import Delivery, Encoder, Shop

TICK_S = 0.01
ENDLESS = sys.maxsize


def main() -> None:
    """Send what is due at every tick; say on stderr if the rate cannot be kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--bootstrap-servers", "--prefix"):
        parser.add_argument(name, required=True)
    for name in ("--rate", "--orders-id", "--payments-id"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    encoder = Encoder({"orders": options.orders_id, "payments": options.payments_id})
    delivery = Delivery(options.bootstrap_servers, encoder, linger_ms=2)
    events = Shop(seed=11, prefix=options.prefix).events(ENDLESS)
    start, sent = time.monotonic(), 0
    while not stop.wait(TICK_S):
        due = int((time.monotonic() - start) * options.rate)
        while sent < due and not stop.is_set():
            delivery.send(next(events))
            sent += 1
    delivery.finish()
    print(f"{sent / (time.monotonic() - start):.0f}")


if __name__ == "__main__":
    main()
