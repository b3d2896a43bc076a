"""The seeded bugs, and which test finds each. The first ten are those every test of ours must beat;
the others sit where this code is most easily broken."""

from typing import Final

from tests.faults.mutants.mutant import Mutant

_SIMULATOR: Final = (
    "tests/faults/test_no_schedule_loses_or_doubles_an_event.py::test_no_schedule_breaks_a_promise"
)
_RULES: Final = "tests/integration/ingest/test_rules.py"
_TRANSACTIONS: Final = "tests/integration/ingest/test_transactions.py"
_PAUSED: Final = "tests/faults/test_a_paused_owner_cannot_write_after_takeover.py"
_UNKNOWN: Final = "tests/faults/test_a_commit_of_unknown_outcome_counts_once.py"
_DECODE: Final = "tests/unit/ingest/test_decode.py"
_LETTERS: Final = "tests/integration/dead_letters/test_keeping.py"
_REDRIVE: Final = "tests/integration/dead_letters/test_redrive.py"
_SNAPSHOTS: Final = "tests/integration/api/test_snapshots.py"

MUTANTS: Final = (
    # What the design names.
    Mutant(
        name="no-fence",
        bug="a batch is committed though its fence hit nothing",
        file="ingest/write.py",
        old="        _expect_hit(fences)\n",
        new="",
        test=_PAUSED,
    ),
    Mutant(
        name="position-before-rows",
        bug="the position is committed before the rows, in a transaction of its own",
        file="ingest/write.py",
        old="            changed = _change_rows(connection, statements, folded)\n        _expect",
        new="        _expect_hit(fences)\n        connection.commit()\n"
        "        stage(connection, statements, folded)\n        with connection.pipeline():\n"
        "            changed = _change_rows(connection, statements, folded)\n        _expect",
        test=_UNKNOWN,
    ),
    Mutant(
        name="auto-commit",
        bug="every statement of a batch commits by itself",
        file="ingest/connect.py",
        old="            self._connection = connection\n",
        new="            connection.autocommit = True\n            self._connection = connection\n",
        test=_RULES,
    ),
    Mutant(
        name="read-uncommitted",
        bug="events of aborted transactions are read",
        file="ingest/settings.py",
        old='"isolation.level": "read_committed"',
        new='"isolation.level": "read_uncommitted"',
        test=_TRANSACTIONS,
    ),
    Mutant(
        name="poison-swallowed",
        bug="what can't be decoded is passed over without a dead letter",
        file="ingest/write.py",
        old="            bury(connection, folded.dead, topic_ids)\n",
        new="            pass\n",
        test=f"{_RULES}::test_a_null_payment_is_a_dead_letter",
    ),
    Mutant(
        name="no-version-guard",
        bug="an older event overwrites a newer row",
        file="ingest/statements.py",
        old='f" AND s.version > x.version WHERE NOT m.made) n"',
        new='f" WHERE NOT m.made) n"',
        test=f"{_RULES}::test_an_older_version_after_a_newer_one_changes_nothing",
    ),
    Mutant(
        name="seek-to-end",
        bug="a partition that is taken is read from its end",
        file="ingest/claim.py",
        old="        next_offset=next_offset,\n        paused=paused,",
        new="        next_offset=max(next_offset, broker.high),\n        paused=paused,",
        test=_TRANSACTIONS,
    ),
    Mutant(
        name="blind-retry",
        bug="after an unknown commit the worker goes on from what it remembers, not from the row",
        file="ingest/worker.py",
        old="        start = claimed.next_offset\n",
        new="        start = self._last.get(partition, claimed.next_offset)\n",
        test=_SIMULATOR,
    ),
    Mutant(
        name="float-money",
        bug="amounts go through binary floating point",
        file="ingest/statements.py",
        old='return f"{staged} * {10 ** -(target.scale or 0):.{target.scale}f}"',
        new='return f"{staged}::float8 / {10 ** (target.scale or 0)}"',
        test=f"{_RULES}::test_amounts_are_exact_to_the_last_of_eighteen_digits",
    ),
    Mutant(
        name="no-snapshot",
        bug="the statements of an operation see different moments",
        file="api/read.py",
        old="await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)",
        new="await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)",
        test=f"{_SNAPSHOTS}::test_every_answer_is_one_snapshot_of_all_views_while_money_moves",
    ),
    # The worker.
    Mutant(
        name="unknown-is-committed",
        bug="a commit of unknown outcome is taken for done",
        file="ingest/worker.py",
        old="        except TransientError as error:\n            self._start_over()\n"
        "            self._suffer(error)\n        else:",
        new="        except TransientError:\n            self._committed(done)\n        else:",
        test=_SIMULATOR,
    ),
    Mutant(
        name="batch-not-reopened",
        bug="a closed batch is forgotten whole where one of its partitions is let go",
        file="ingest/worker.py",
        old="            gather.items[:0] = batch.items\n",
        new="",
        test=_SIMULATOR,
    ),
    Mutant(
        name="position-runs-ahead",
        bug="a batch advances to what was read since it was closed",
        file="ingest/worker.py",
        old="            end = stop.offset if stop else read_to\n",
        new="            end = stop.offset if stop else max(read_to, owned.read_to)\n",
        test=_SIMULATOR,
    ),
    Mutant(
        name="epoch-not-raised",
        bug="a taker-over draws no new epoch",
        file="ingest/claim.py",
        old='" owner_epoch = p.owner_epoch + 1, owner = excluded.owner,"',
        new='" owner_epoch = p.owner_epoch, owner = excluded.owner,"',
        test=_PAUSED,
    ),
    Mutant(
        name="stuck-behind-aborted",
        bug="the position does not pass aborted events and the marks of transactions",
        file="ingest/worker.py",
        old="max(owned.read_to, passed.get(p, 0))",
        new="owned.read_to",
        test=_TRANSACTIONS,
    ),
    Mutant(
        name="fresh-too-soon",
        bug="an answer is called complete as of an end that was not reached",
        file="ingest/worker.py",
        old="if seen.high <= end]",
        new="if seen.high <= end + 1]",
        test=_SIMULATOR,
    ),
    # Reading events.
    Mutant(
        name="trailing-bytes-in-a-crowd",
        bug="in bulk, a body that does not end where it should is taken for good",
        file="ingest/columns.py",
        old="        bulk.refuse(who, at != bulk.end)\n",
        new="",
        test=_DECODE,
    ),
    Mutant(
        name="key-not-compared-in-a-crowd",
        bug="in bulk, an event may have another key than its record",
        file="ingest/columns.py",
        old="        _compare_keys(bulk, ordered[form.key_at], keys)\n",
        new="",
        test=_DECODE,
    ),
    Mutant(
        name="sign-lost",
        bug="in bulk, negative amounts are read as positive ones",
        file="ingest/bulk.py",
        old="        value: Ints = word >> spare\n",
        new="        value: Ints = abs(word >> spare)\n",
        test=_DECODE,
    ),
    # Folding and writing.
    Mutant(
        name="last-of-equals-wins",
        bug="of two events of one version the second one stays",
        file="ingest/fold.py",
        old="        return max(events, key=lambda event: event.version)  #",
        new="        return max(reversed(events), key=lambda event: event.version)  #",
        test="tests/unit/ingest/test_fold.py",
    ),
    Mutant(
        name="counters-not-corrected",
        bug="what the stored rows tell of duplicates does not reach the counters",
        file="ingest/write.py",
        old="            _correct_counters(connection, statements, folded, before)\n",
        new="            pass\n",
        test=f"{_RULES}::test_the_same_event_twice_changes_nothing",
    ),
    Mutant(
        name="payments-not-rolled-up",
        bug="an order is not summed anew when a payment of it comes",
        file="ingest/statements.py",
        old='            parts.append(f"SELECT {keys} FROM staged_{view.rollup.child.name}")\n',
        new="            pass\n",
        test=f"{_RULES}::test_a_payment_that_moves_on_is_summed_once",
    ),
    Mutant(
        name="old-image-kept",
        bug="what a row added to a total before is not taken off",
        file="views/sums.py",
        old="union_all(given, taken)",
        new="union_all(given)",
        test=_RULES,
    ),
    Mutant(
        name="tombstone-forgotten",
        bug="an event that is older than a tombstone brings the row back",
        file="ingest/statements.py",
        old='            f\' WHEN b.partition = {of}.source_partition THEN b."offset" > '
        "{of}.source_offset'",
        new="            f' WHEN b.partition = {of}.source_partition THEN false'",
        test=_RULES,
    ),
    # Dead letters.
    Mutant(
        name="letters-made-twice",
        bug="a log that is read again is judged anew, whatever was decided about its dead letters",
        file="ingest/worker.py",
        old="        return as_recorded(item, letters) if letters else item\n",
        new="        return item\n",
        test=_LETTERS,
    ),
    Mutant(
        name="redrive-not-closed",
        bug="a redriven dead letter stays open",
        file="ingest/redrive.py",
        old="\"UPDATE ingest.dead_letters SET state = 'redriven', decided_at = now(),\"",
        new='"UPDATE ingest.dead_letters SET state = state, decided_at = now(),"',
        test=f"{_REDRIVE}::test_a_redrive_applies_closes_and_tells_and_a_second_one_changes_nothing",
    ),
    Mutant(
        name="breaker-never-opens",
        bug="a topic gone bad is dead-lettered to its end",
        file="ingest/breaker.py",
        old="    return dead & _RUN == _RUN or dead.bit_count() > MOST_DEAD\n",
        new="    return False\n",
        test="tests/unit/ingest/test_breaker.py",
    ),
    # Reading views.
    Mutant(
        name="no-tie-break",
        bug="rows that are equal in the asked order have none among themselves",
        file="api/page.py",
        old="(*terms, *(Term(name, down) for name in view_type.key if name not in named))",
        new="terms or tuple(Term(name, down) for name in view_type.key)",
        test="tests/unit/api/test_texts.py",
    ),
    Mutant(
        name="everybody-sees-all",
        bug="a customer reads the rows of others",
        file="views/ddl.py",
        old="FOR SELECT TO {CUSTOMER} USING ({rows})",
        new="FOR SELECT TO {CUSTOMER} USING (true)",
        test="tests/integration/api/test_callers.py",
    ),
    # Rebuilds.
    Mutant(
        name="swap-without-fence",
        bug="a worker goes on in the build that was retired",
        file="rebuild/swap.py",
        old='f"UPDATE {live}.positions SET owner_epoch = owner_epoch + 1"',
        new='f"UPDATE {live}.positions SET owner_epoch = owner_epoch"',
        test="tests/integration/rebuild/test_swap.py",
    ),
    Mutant(
        name="open-letters-go-in",
        bug="a rebuild applies what is an open dead letter",
        file="rebuild/feed.py",
        old="        reasons = [self._reason(record) for record in records]\n",
        new="        reasons: list[Reason | None] = [None for _record in records]\n",
        test="tests/integration/rebuild/test_letters.py",
    ),
)
