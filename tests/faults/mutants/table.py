"""The seeded bugs, and which test finds each. The first ten are those every test of ours must beat;
the others sit where this code is most easily broken."""

from typing import Final

from tests.faults.mutants.mutant import Mutant

_SIMULATOR: Final = (
    "tests/faults/test_no_schedule_loses_or_doubles_an_event.py::test_no_schedule_breaks_a_promise"
)
_RULES: Final = "tests/integration/ingest/test_rules.py"
_ABORTED: Final = (
    "tests/integration/ingest/test_transactions.py"
    "::test_aborted_events_never_count_and_positions_pass_them[from a backlog]"
)
_PAUSED: Final = "tests/faults/test_a_paused_owner_cannot_write_after_takeover.py"
_KILLED: Final = "tests/faults/test_a_kill_at_any_step_loses_nothing.py"
_DECODE: Final = "tests/unit/ingest/test_decode.py"
_LETTERS: Final = "tests/integration/dead_letters/test_keeping.py"
_REDRIVE: Final = "tests/integration/dead_letters/test_redrive.py"
_OUTBOX: Final = "tests/integration/dead_letters/test_outbox.py"
_BREAKER: Final = "tests/integration/dead_letters/test_breaker.py"
_OWNERSHIP: Final = "tests/integration/ingest/test_ownership.py"
_CROWD: Final = f"{_DECODE}::test_each_shape_of_poison_has_its_reason_alone_and_in_a_crowd"
_REFUSALS: Final = (
    "tests/unit/ingest/test_claim.py"
    "::test_a_position_that_means_something_else_is_refused_with_the_remedy"
)
_SNAPSHOTS: Final = "tests/integration/api/test_snapshots.py"
_REBUILD: Final = "tests/integration/rebuild"
_RACES: Final = f"{_REBUILD}/test_repair_races.py"

MUTANTS: Final = (
    # What the design names.
    Mutant(
        name="no-fence",
        bug="a batch is committed though its fence hit nothing",
        file="ingest/write.py",
        old="        _expect_hit(fence, folded)\n",
        new="",
        test=f"{_OWNERSHIP}::test_a_batch_of_an_owner_that_was_replaced_leaves_nothing",
    ),
    Mutant(
        name="fence-without-epoch",
        bug="whoever stands at the right offset passes the fence, replaced or not",
        file="ingest/statements.py",
        old=' AND {row}.owner_epoch = g.epoch"',
        new='"',
        test=f"{_OWNERSHIP}::test_one_partition_that_is_lost_fences_all_and_is_named[epoch]",
    ),
    Mutant(
        name="fence-without-offset",
        bug="an owner passes the fence though its position was moved",
        file="ingest/statements.py",
        old="{row}.next_offset = g.start AND ",
        new="",
        test=f"{_OWNERSHIP}::test_one_partition_that_is_lost_fences_all_and_is_named[offset]",
    ),
    Mutant(
        name="held-back-for-ever",
        bug="a partition that was held back, let go and started again is never read",
        file="ingest/consume.py",
        old="        self._consumer.resume(starts)\n",
        new="",
        test="tests/integration/ingest/test_reading.py"
        "::test_what_was_held_back_and_let_go_is_read_when_it_is_started_again",
    ),
    Mutant(
        name="position-before-rows",
        bug="the position is committed before the rows, in a transaction of its own",
        file="ingest/write.py",
        old="            changed = _change_rows(connection, statements, folded)\n            if",
        new="        _expect_hit(fence, folded)\n        connection.commit()\n"
        "        with connection.pipeline():\n"
        "            changed = _change_rows(connection, statements, folded)\n            if",
        test=f"{_KILLED}::test_a_failure_at_any_step_is_waited_out",
    ),
    Mutant(
        name="auto-commit",
        bug="every statement of a batch commits by itself",
        file="ingest/connect.py",
        old="            self._connection = connection\n",
        new="            connection.autocommit = True\n            self._connection = connection\n",
        test=f"{_OWNERSHIP}::test_one_partition_that_is_lost_fences_all_and_is_named[epoch]",
    ),
    Mutant(
        name="read-uncommitted",
        bug="events of aborted transactions are read",
        file="ingest/options.py",
        old='"isolation.level": "read_committed"',
        new='"isolation.level": "read_uncommitted"',
        test=_ABORTED,
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
        test=_ABORTED,
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
        file="api/session.py",
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
        test=f"{_PAUSED}::test_a_woken_owner_writes_nothing_and_rejoins[between transactions]",
    ),
    Mutant(
        name="stuck-behind-aborted",
        bug="the position does not pass aborted events and the marks of transactions",
        file="ingest/worker.py",
        old="max(owned.read_to, passed.get(p, 0))",
        new="owned.read_to",
        test=_ABORTED,
    ),
    Mutant(
        name="fresh-too-soon",
        bug="an answer is called complete as of an end that was not reached",
        file="ingest/worker.py",
        old="if seen.high <= end]",
        new="if seen.high <= end + 1]",
        test=_SIMULATOR,
    ),
    Mutant(
        name="membership-not-asked",
        bug="a fenced worker takes its partitions anew without asking the group",
        file="ingest/worker.py",
        old="        self._unconfirmed = True\n",
        new="",
        test=_SIMULATOR,
    ),
    Mutant(
        name="confirmed-after-all",
        bug="a worker that is no member keeps what it wanted to claim",
        file="ingest/worker.py",
        old="            self._to_claim.clear()\n",
        new="",
        test=_SIMULATOR,
    ),
    Mutant(
        name="revoke-does-not-wait",
        bug="a partition is let go while its batch is being written",
        file="ingest/worker.py",
        old="        self._await_write()\n        reached(IN_REVOKE)\n",
        new="        reached(IN_REVOKE)\n",
        test=(
            "tests/unit/ingest/test_revoke.py"
            "::test_a_revoke_waits_for_the_batch_that_is_being_written"
        ),
    ),
    Mutant(
        name="pause-keeps-gathered",
        bug="what was read of a partition is written although an operator paused it meanwhile",
        file="ingest/worker.py",
        old="        self._forget_gathered(newly)\n",
        new="",
        test=_SIMULATOR,
    ),
    Mutant(
        name="loss-in-halves",
        bug="the record that the database refuses is forgotten before it is committed as dead",
        file="ingest/worker.py",
        old="        self._condemned[place] = Fault(Reason.REFUSED_BY_DATABASE, str(error))\n",
        new="",
        test=_SIMULATOR,
    ),
    Mutant(
        name="behind-the-stop",
        bug="records behind the one that opened the breaker are applied",
        file="ingest/worker.py",
        old="    return stop is not None and item.record.offset >= stop.offset\n",
        new="    return stop is not None and item.record.offset > stop.offset\n",
        test=_SIMULATOR,
    ),
    Mutant(
        name="breaker-begins-anew",
        bug="each batch begins to count dead letters at none",
        file="ingest/worker.py",
        old="            course = before.get(partition, owned.course)\n",
        new="            course = Course()\n",
        test=f"{_BREAKER}::test_a_topic_gone_bad_stops_at_the_same_record_whatever_the_batches",
    ),
    # Ownership.
    Mutant(
        name="trimmed-log-read-on",
        bug="events that retention removed are passed over in silence",
        file="ingest/claim.py",
        old="    if next_offset < broker.low:\n",
        new="    if False:\n",
        test=f"{_REFUSALS}[9-broker2-Retention gap]",
    ),
    Mutant(
        name="recreated-topic-read-on",
        bug="the offsets of a topic's earlier life are taken for those of the new one",
        file="ingest/claim.py",
        old='    if row["topic_id"] not in (None, broker.topic_id):\n',
        new="    if False:\n",
        test=f"{_REFUSALS}[15-broker1-Recreated topic]",
    ),
    Mutant(
        name="old-build-taken",
        bug="a session from before a swap takes partitions of the retired build",
        file="ingest/claim.py",
        old='    if session.target is None and row != ("live",):\n',
        new="    if False:\n",
        test=f"{_OWNERSHIP}::test_a_session_from_before_a_swap_takes_nothing",
    ),
    Mutant(
        name="newer-owner-overlooked",
        bug="a worker takes back what a newer one has taken over",
        file="ingest/claim.py",
        old="        if lost:\n            raise FencedError(lost)\n        taken = {",
        new="        taken = {",
        test=(
            "tests/faults/test_a_claim_takes_what_is_new_beside_what_is_its_own.py"
            "::test_nothing_is_taken_where_somebody_newer_owns_one_of_them"
        ),
    ),
    Mutant(
        name="ghosts-stay",
        bug="a frozen owner holds its position row for as long as it likes",
        file="ingest/claim.py",
        old="    timer.start()\n",
        new="",
        test=f"{_OWNERSHIP}::test_whatever_of_ours_holds_a_position_is_ended_by_a_taker_over",
    ),
    Mutant(
        name="fresh-without-the-end",
        bug="a position counts as fresh though the end seen was not reached",
        file="ingest/claim.py",
        old='" complete_as_of = CASE WHEN next_offset >= %(high)s"',
        new='" complete_as_of = CASE WHEN true"',
        test=f"{_OWNERSHIP}::test_a_position_is_complete_as_of_a_time_only_once_the_end_seen_then_is_reached",
    ),
    Mutant(
        name="replaced-owner-notes",
        bug="an owner that was replaced goes on telling how fresh its position is",
        file="ingest/claim.py",
        old='" WHERE topic = %(topic)s AND partition = %(partition)s AND owner_epoch = %(epoch)s"',
        new='" WHERE topic = %(topic)s AND partition = %(partition)s AND %(epoch)s > 0"',
        test=f"{_OWNERSHIP}"
        "::test_a_batch_notes_no_end_of_a_partition_that_it_does_not_move_and_lost",
    ),
    # Reading events.
    Mutant(
        name="trailing-bytes-in-a-crowd",
        bug="in bulk, a body that does not end where it should is taken for good",
        file="ingest/columns.py",
        old="        bulk.refuse(who, at != bulk.end)\n",
        new="",
        test=f"{_CROWD}[70-trailing]",
    ),
    Mutant(
        name="key-not-compared-in-a-crowd",
        bug="in bulk, an event may have another key than its record",
        file="ingest/columns.py",
        old="        _compare_keys(bulk, ordered[form.key_at], keys)\n",
        new="",
        test=f"{_CROWD}[70-key_mismatch]",
    ),
    Mutant(
        name="sign-lost",
        bug="in bulk, negative amounts are read as positive ones",
        file="ingest/bulk.py",
        old="        value: Ints = word >> spare\n",
        new="        value: Ints = abs(word >> spare)\n",
        test=f"{_DECODE}::test_a_wrong_number_anywhere_is_found_in_a_crowd_too",
    ),
    Mutant(
        name="end-of-a-text-not-looked-at",
        bug="in bulk, what follows the first eight bytes of a text may be no text",
        file="ingest/bulk.py",
        old="            further = left > 8\n",
        new="            further = left > 99\n",
        test="tests/unit/ingest/test_bulk.py"
        "::test_texts_with_a_nul_or_beyond_ascii_are_found_wherever_it_is",
    ),
    # Folding and writing.
    Mutant(
        name="last-of-equals-wins",
        bug="of two events of one version the second one stays",
        file="ingest/fold.py",
        old="        return max(events, key=lambda event: event.version)  #",
        new="        return max(reversed(events), key=lambda event: event.version)  #",
        test="tests/unit/ingest/test_fold.py::test_any_cut_of_the_log_is_one_event_at_a_time",
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
        test=f"{_RULES}::test_a_tombstone_hides_an_order_and_keeps_its_version",
    ),
    Mutant(
        name="tombstone-forgotten",
        bug="an event that is older than a tombstone brings the row back",
        file="ingest/statements.py",
        old="f' WHEN b.partition = {of}.source_partition THEN b.\"offset\" > {of}.source_offset'",
        new="f' WHEN b.partition = {of}.source_partition THEN false'",
        test=f"{_RULES}::test_a_tombstone_hides_an_order_and_keeps_its_version",
    ),
    Mutant(
        name="equal-version-overwrites",
        bug="an event of the same version with other content replaces the row",
        file="ingest/statements.py",
        old='f" AND s.version > x.version WHERE NOT m.made) n"',
        new='f" AND s.version >= x.version WHERE NOT m.made) n"',
        test=(
            f"{_RULES}::"
            "test_the_same_version_with_other_content_is_a_dead_letter_and_the_first_stays"
        ),
    ),
    Mutant(
        name="delta-sign",
        bug="what a row added to a total before is added once more",
        file="views/sums.py",
        old="((-gone.c[name]).label(name) for name in aggregate.measures)",
        new="((+gone.c[name]).label(name) for name in aggregate.measures)",
        test=f"{_RULES}::test_a_tombstone_hides_an_order_and_keeps_its_version",
    ),
    # Dead letters.
    Mutant(
        name="letters-made-twice",
        bug="a log that is read again is judged anew, whatever was decided about its dead letters",
        file="ingest/worker.py",
        old="        return as_recorded(item, letters) if letters else item\n",
        new="        return item\n",
        test=f"{_LETTERS}::test_a_log_read_again_goes_by_the_state_of_its_letters_and_makes_no_second_one",
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
        test=(
            "tests/unit/ingest/test_breaker.py"
            "::test_the_twentieth_dead_record_in_a_row_stops_the_partition"
        ),
    ),
    Mutant(
        name="redrive-not-idempotent",
        bug="a letter that another redrive closed meanwhile is applied and closed again",
        file="ingest/redrive.py",
        old="\"SELECT id FROM ingest.dead_letters WHERE id = ANY(%s) AND state = 'open'\"",
        new='"SELECT id FROM ingest.dead_letters WHERE id = ANY(%s)"',
        test=f"{_REDRIVE}::test_a_redrive_that_another_one_overtakes_changes_nothing",
    ),
    Mutant(
        name="redrive-not-listed",
        bug="a build does not note which redriven letters it holds",
        file="ingest/redrive.py",
        old="        list_applied(connection, build, places)\n",
        new="",
        test=f"{_REDRIVE}::test_a_redrive_applies_closes_and_tells_and_a_second_one_changes_nothing",
    ),
    Mutant(
        name="redrive-moves-nobody",
        bug="readers are not told of rows that a redrive changed",
        file="ingest/redrive.py",
        old='"UPDATE ingest.builds SET change_counter = change_counter + 1 WHERE name = %s"',
        new='"UPDATE ingest.builds SET change_counter = change_counter WHERE name = %s"',
        test=f"{_REDRIVE}::test_a_redrive_applies_closes_and_tells_and_a_second_one_changes_nothing",
    ),
    Mutant(
        name="senders-collide",
        bug="two workers send the same dead letter",
        file="ingest/outbox.py",
        old=' FOR UPDATE OF o SKIP LOCKED"',
        new='"',
        test=f"{_OUTBOX}::test_senders_at_the_same_time_do_not_send_the_same_row",
    ),
    Mutant(
        name="sent-before-delivered",
        bug="a dead letter is noted as sent though the broker did not take it",
        file="ingest/outbox.py",
        old="                    self._note(sent.delivered)\n",
        new="                    self._note([letter.id for letter in letters])\n",
        test=f"{_OUTBOX}::test_one_letter_that_the_broker_refuses_does_not_hold_up_the_others",
    ),
    Mutant(
        name="discard-takes-all",
        bug="a discard overrules what was decided on a letter before",
        file="ingest/operate.py",
        old="decided_by = %(who)s{MATCHES} AND state = 'open'\"",
        new='decided_by = %(who)s{MATCHES}"',
        test=f"{_LETTERS}::test_what_was_decided_on_a_letter_stays_decided",
    ),
    Mutant(
        name="purge-leaves-unsent",
        bug="bytes that were purged are sent all the same",
        file="ingest/operate.py",
        old='" unsent AS (DELETE FROM ingest.outbox USING old WHERE dead_letter_id = old.id)"',
        new='" unsent AS (SELECT FROM old)"',
        test=f"{_LETTERS}::test_what_is_purged_is_not_sent_any_more",
    ),
    Mutant(
        name="resume-stays-stopped",
        bug="a resume leaves a stopped partition stopped",
        file="ingest/operate.py",
        old='sql.SQL("paused = false, stopped_reason = NULL")',
        new='sql.SQL("paused = false")',
        test=f"{_BREAKER}::test_a_resume_without_a_mend_stops_again_soon",
    ),
    # Reading views.
    Mutant(
        name="no-tie-break",
        bug="rows that are equal in the asked order have none among themselves",
        file="api/page.py",
        old="(*terms, *(Term(name, down) for name in view_type.key if name not in named))",
        new="terms or tuple(Term(name, down) for name in view_type.key)",
        test=(
            "tests/unit/api/test_texts.py"
            "::test_an_order_is_made_total_by_the_key_in_the_direction_of_its_last_term"
        ),
    ),
    Mutant(
        name="everybody-sees-all",
        bug="a customer reads the rows of others",
        file="views/ddl.py",
        old="FOR SELECT TO {CUSTOMER} USING ({rows})",
        new="FOR SELECT TO {CUSTOMER} USING (true)",
        test=(
            "tests/integration/api/test_callers.py"
            "::test_a_customer_sees_the_own_rows_and_nothing_else"
        ),
    ),
    Mutant(
        name="at-least-one",
        bug="a position is held to be in where only one of its partitions is",
        file="views/positions.py",
        old="return all(self.next_offsets.get(tp, 0) >= n for tp, n in other.next_offsets.items())",
        new="return any(self.next_offsets.get(tp, 0) >= n for tp, n in other.next_offsets.items())",
        test=(
            "tests/unit/views/test_positions.py"
            "::test_a_vector_includes_another_where_each_partition_is_as_far"
        ),
    ),
    Mutant(
        name="hidden-shown",
        bug="rows of removed orders are shown",
        file="api/selects.py",
        old='        yield column(target, "visible")\n',
        new='        yield "true"\n',
        test=("tests/integration/api/test_reading.py::test_hidden_rows_are_never_shown_anywhere"),
    ),
    Mutant(
        name="stale-position",
        bug="a position that is not there yet is taken for there",
        file="api/position.py",
        old="        if not consistency.vector.includes(requirement.at_least):\n",
        new="        if False:\n",
        test=(
            "tests/integration/api/test_waiting.py"
            "::test_the_time_out_is_kept_and_says_what_is_there"
        ),
    ),
    # Rebuilds.
    Mutant(
        name="swap-without-fence",
        bug="a worker goes on in the build that was retired",
        file="rebuild/swap.py",
        old='f"UPDATE {live}.positions SET owner_epoch = owner_epoch + 1"',
        new='f"UPDATE {live}.positions SET owner_epoch = owner_epoch"',
        test="tests/integration/rebuild/test_swap.py"
        "::test_a_live_worker_goes_on_in_the_new_build_under_a_newer_epoch",
    ),
    Mutant(
        name="open-letters-go-in",
        bug="a rebuild applies what is an open dead letter",
        file="rebuild/feed.py",
        old="        reasons = [self._reason(record) for record in records]\n",
        new="        reasons: list[Reason | None] = [None for _record in records]\n",
        test="tests/integration/rebuild/test_letters.py"
        "::test_open_and_discarded_ones_stay_out_and_redriven_ones_go_in",
    ),
    Mutant(
        name="retried-letters-stay-open",
        bug="letters that a rebuild took in stay open",
        file="rebuild/swap.py",
        old="            close_retried(connection, retried)\n",
        new="",
        test="tests/integration/rebuild/test_letters.py"
        "::test_a_fixed_decoder_brings_open_ones_in_and_the_swap_closes_them",
    ),
    Mutant(
        name="swap-unequal",
        bug="a build that is behind the live one is switched to",
        file="rebuild/swap.py",
        old="    if not same_vector(ends, starts):\n",
        new="    if any(starts.get(p, 0) > n for p, n in ends.items()):\n",
        test=(
            "tests/unit/rebuild/test_swap.py"
            "::test_a_build_that_holds_other_events_is_not_switched_to"
        ),
    ),
    Mutant(
        name="ranges-counted-only",
        bug="of two builds the rows of a range are counted and not compared",
        file="rebuild/compare.py",
        old="        if one == other:\n",
        new="        if one[0] == other[0]:\n",
        test=f"{_REBUILD}/test_every_column.py"
        "::test_a_change_in_any_column_is_shown_with_both_values",
    ),
    Mutant(
        name="last-range-left-out",
        bug="rows behind the last bound of a table's ranges are not compared",
        file="rebuild/compare.py",
        old="    return list(zip([None, *ends], [*ends, None], strict=True))\n",
        new="    return list(zip([None, *ends[:-1]], ends or [None], strict=True))\n",
        test=f"{_REBUILD}/test_every_column.py::test_no_row_falls_between_two_ranges",
    ),
    Mutant(
        name="tombstones-not-compared",
        bug="what keeps a removed order removed is not compared",
        file="rebuild/compare.py",
        old="TOMBSTONES, APPLIED_DEAD_LETTERS]:",
        new="APPLIED_DEAD_LETTERS]:",
        test=f"{_REBUILD}/test_verify.py::test_whatever_was_changed_is_shown_and_cured_by_a_rebuild",
    ),
    Mutant(
        name="declared-hides-all",
        bug="a row with one declared difference is not looked at any further",
        file="rebuild/compare.py",
        old="        found.different += bool(others)\n",
        new="        found.different += bool(others) and not named\n",
        test=f"{_REBUILD}/test_verify.py::test_a_declared_difference_is_reported_and_does_not_fail",
    ),
    Mutant(
        name="redriven-not-in-the-proof",
        bug="letters that were redriven while a rebuild ran are not taken in before it is compared",
        file="rebuild/work.py",
        old="                taker.take(redriven.missing_from(held, self.build.name))\n",
        new="",
        test=f"{_REBUILD}/test_letters.py"
        "::test_open_and_discarded_ones_stay_out_and_redriven_ones_go_in",
    ),
    Mutant(
        name="redriven-not-in-the-swap",
        bug="a letter that is redriven just before a swap holds the live build is lost",
        file="rebuild/swap.py",
        old="            taker.take(redriven.missing_from(connection, self._to.name))\n"
        "            starts = lock_positions(connection, self._to.name)\n"
        "            refuse_unequal",
        new="            starts = lock_positions(connection, self._to.name)\n"
        "            refuse_unequal",
        test=f"{_REBUILD}/test_letters.py"
        "::test_one_that_is_redriven_just_before_the_live_build_is_held_is_in_the_new_build",
    ),
    Mutant(
        name="rolled-up-at-the-start-only",
        bug="payments that came when their orders were written already are left out of a rebuild",
        file="views/ddl.py",
        old="found.having(or_(*changed))",
        new="found.having(parents[0] == '')",
        test=f"{_REBUILD}/test_killed.py"
        "::test_payments_that_come_when_their_orders_are_written_are_summed_all_the_same",
    ),
    Mutant(
        name="no-row-for-payments-alone",
        bug="a rebuild has no row for an order that is known from its payments alone",
        file="rebuild/builds.py",
        old="                run_all(connection, ddl.roll_up(view, build.name))\n",
        new="                run_all(connection, ddl.roll_up(view, build.name)[1:])\n",
        test=f"{_REBUILD}/test_killed.py"
        "::test_payments_that_come_when_their_orders_are_written_are_summed_all_the_same",
    ),
    Mutant(
        name="throttle-not-kept",
        bug="a rebuild with a throttle goes as fast as it can",
        file="rebuild/bulk.py",
        old="    pacer = Pacer(halt, rate=load.rate)\n",
        new="    pacer = Pacer(halt)\n",
        test=f"{_REBUILD}/test_verify.py::test_a_throttle_bounds_the_rate",
    ),
    Mutant(
        name="shown-whatever-was-removed",
        bug="a rebuild shows orders that were removed",
        file="rebuild/builds.py",
        old="                run_all(connection, hide_removed(build.name, view))\n",
        new="                run_all(connection, hide_removed(build.name, view)[:1])\n",
        test=f"{_REBUILD}/test_hidden.py::test_hidden_orders_are_the_same_in_both_builds",
    ),
    Mutant(
        name="staged-and-never-emptied",
        bug="what a batch has met is still there for the next one, and counts again",
        file="ingest/connect.py",
        old="        return self.statements.delete\n",
        new='        return "SELECT 1"\n',
        test="tests/integration/ingest/test_staging.py"
        "::test_each_batch_counts_once_however_it_is_staged",
    ),
    Mutant(
        name="met-and-not-locked",
        bug="the rows that a batch meets are read and not locked: old images may be older ones",
        file="ingest/statements.py",
        old='"FOR UPDATE" if locked else "OFFSET 0"',
        new='"OFFSET 0"',
        test="tests/faults/test_an_order_and_its_payments_meet_in_one_row.py"
        "::test_an_order_and_its_payments_wait_for_each_other_in_its_row",
    ),
    Mutant(
        name="groups-of-the-right-row-only",
        bug="a repair leaves the sums of the group that an order was in by mistake",
        file="rebuild/repair.py",
        old='        f" {ddl.text_of(_groups_of(aggregate, live.name))}"\n',
        new='        f" {ddl.text_of(_groups_of(aggregate, _SCRATCH))}"\n',
        test=f"{_RACES}::test_an_order_that_moved_between_customers_and_days_is_mended_with_all_their_sums",
    ),
    Mutant(
        name="groups-of-the-wrong-row-only",
        bug="a repair leaves the sums of the group that an order belongs to",
        file="rebuild/repair.py",
        old='        f" UNION {ddl.text_of(_groups_of(aggregate, _SCRATCH))}"\n',
        new="",
        test=f"{_RACES}::test_an_order_that_moved_between_customers_and_days_is_mended_with_all_their_sums",
    ),
    Mutant(
        name="repair-stops-short",
        bug="a repair does not read what the worker took in before it was kept out",
        file="rebuild/repair.py",
        old="                self._write(connection, session, scan.below(ends))\n",
        new="",
        test=f"{_RACES}::test_a_version_that_the_worker_took_in_between_is_not_taken_back",
    ),
)
