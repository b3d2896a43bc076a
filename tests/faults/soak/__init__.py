"""The soak: everything at once, for as long as one likes, with a fault every 10 to 20 seconds.

`make soak MINUTES=10 SEED=1`. `load` sends, `readers` ask and check, `faults` break things by a
seeded schedule, `watch` measures, `answers` holds sampled answers against the log, `report` says
what came of it. What it builds on is `tests/faults/harness`.
"""
