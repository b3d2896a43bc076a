"""The fault harness: what breaks things on purpose, and what says that nothing came of it.

`pgproxy` and `registryfront` stand between the worker and its servers; `workers` are processes to
be killed and frozen; `producers` keep a ledger; `chain` and `judge` check the invariants; `bites`
counts what really happened. `ground` puts them together for one test, `field` holds the servers.
"""
