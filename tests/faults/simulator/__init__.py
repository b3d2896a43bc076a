"""The worker's page under every schedule: `ingest.worker.Worker` itself, against fakes.

`world` plays a schedule; `broker` and `database` are the fakes; `search` makes schedules from seeds
and cuts a failing one down to the moves that matter.
"""
