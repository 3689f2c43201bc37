"""The flight recorder: what survives a worker, and who gets a task that both sides reach for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import Between, in_a_process

from trioserver._tasks._recorder import (
    MAX_HANDED,
    PAGE_SIZE,
    RECORD_SIZE,
    Page,
    PageError,
    Recorder,
    create_page,
)
from trioserver._tasks._wire import REPORT, Status

if TYPE_CHECKING:
    from trioserver._tasks._wire import Report


def report(seq: int, body: bytes = b"") -> Report:
    return seq, Status.OK, 1.0, 2.0, body


def packed(seq: int, body: bytes = b"") -> bytes:
    return REPORT.pack(*report(seq)[:-1], len(body)) + body


def test_a_fresh_page_says_that_nothing_was_begun(recorder: Recorder, page: Page) -> None:
    """As soon as the worker has opened it."""
    assert page.begun() == (0, 0.0)
    assert page.published() == []


def test_a_page_that_nobody_has_opened_makes_no_sense(page: Page) -> None:
    """Nor one that was zeroed: else it would say that nothing was ever begun."""
    with pytest.raises(PageError):
        page.begun()
    assert page.published() == []


def test_what_was_begun_last_is_told(recorder: Recorder, page: Page) -> None:
    """Number and time, as the worker gave them."""
    assert recorder.begin(1, 10.5)
    assert recorder.begin(2, 11.5)

    assert page.begun() == (2, 11.5)


def test_a_task_revoked_first_does_not_run(recorder: Recorder, page: Page) -> None:
    """The dispatcher has it back at once, and the worker skips it; the next one runs."""
    assert page.revoke(1)
    assert not recorder.begin(1, 0.0)
    assert recorder.begin(2, 0.0)


def test_a_task_begun_first_is_not_taken_back(recorder: Recorder, page: Page) -> None:
    """Nor is one before it."""
    assert recorder.begin(1, 0.0)
    assert recorder.begin(2, 0.0)

    assert not page.revoke(2)
    assert not page.revoke(1)
    assert page.revoke(3)


def test_marks_hold_for_as_many_tasks_as_a_worker_may_have(recorder: Recorder, page: Page) -> None:
    """All may be revoked, or every other one; the next round has no marks left of the last."""
    for seq in range(1, MAX_HANDED + 1, 2):
        assert page.revoke(seq)
    for seq in range(1, 2 * MAX_HANDED + 1):
        is_revoked = seq <= MAX_HANDED and seq % 2 == 1
        assert recorder.begin(seq, 0.0) is not is_revoked


def test_published_reports_are_read_until_they_are_cleared(recorder: Recorder, page: Page) -> None:
    """They come in order, and as often as someone looks."""
    assert recorder.publish(packed(1, b"one"))
    assert recorder.publish(packed(2))

    assert page.published() == [report(1, b"one"), report(2)]
    assert page.published() == [report(1, b"one"), report(2)]
    with recorder.published() as unsent:
        assert bytes(unsent) == packed(1, b"one") + packed(2)

    recorder.clear()

    assert page.published() == []
    assert recorder.publish(packed(3))
    assert page.published() == [report(3)]


def test_a_report_that_finds_no_room_is_refused_whole(recorder: Recorder, page: Page) -> None:
    """Room is exact to the byte, and what was refused leaves no trace."""
    room = 0
    while recorder.publish(b"\0"):
        room += 1
    assert 0 < room < RECORD_SIZE
    recorder.clear()
    fits = room - REPORT.size

    assert not recorder.publish(packed(1, bytes(fits + 1)))
    assert page.published() == []
    assert recorder.publish(packed(1, bytes(fits)))
    assert not recorder.publish(b"\0")
    assert page.published() == [report(1, bytes(fits))]


def test_the_page_outlives_its_worker(page_fd: int, page: Page) -> None:
    """What a process wrote before it was killed is there."""
    with in_a_process(
        page_fd,
        f"""
        recorder.begin(7, 3.5)
        recorder.publish({packed(6)!r})
        import os
        os.kill(os.getpid(), 9)
        """,
    ) as process:
        assert process.wait() == -9

    assert page.begun() == (7, 3.5)
    assert page.published() == [report(6)]


def test_two_processes_that_race_agree(page_fd: int, page: Page) -> None:
    """At full speed, no task is both run and taken back, and what was taken back is skipped."""
    tasks = 20_000
    with in_a_process(
        page_fd,
        f"""
        print(flush=True)
        print([seq for seq in range(1, {tasks + 1}) if recorder.begin(seq, 0.0)])
        """,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has opened the page
        taken = set()
        reached_for = set()
        ahead = 0
        while (begun := page.begun()[0]) < tasks:
            ahead = ahead % 3 + 1
            reached_for.add(begun + ahead)
            if page.revoke(begun + ahead):
                taken.add(begun + ahead)
        out, _ = process.communicate()

    ran = set(map(int, out.strip(b"[]\n").split(b", ")))
    assert not ran & taken
    assert set(range(1, tasks + 1)) - ran <= reached_for


def test_a_read_that_is_torn_gives_nothing(
    recorder: Recorder, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker may start over, and fill the page again, while someone reads."""
    recorder.publish(packed(1, b"old"))
    recorder.publish(packed(2, b"old"))

    def start_over() -> None:
        recorder.clear()
        recorder.publish(packed(3, b"new"))
        recorder.publish(packed(4, b"new"))

    with monkeypatch.context() as patch:
        patch.setattr(page, "_words", Between(page._words, 1, start_over))
        assert page.published() == []

    assert page.published() == [report(3, b"new"), report(4, b"new")]


def test_more_reports_during_a_read_do_no_harm(
    recorder: Recorder, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are only appended, and come with the next read."""
    recorder.publish(packed(1))

    with monkeypatch.context() as patch:
        patch.setattr(page, "_words", Between(page._words, 1, lambda: recorder.publish(packed(2))))
        assert page.published() == [report(1)]

    assert page.published() == [report(1), report(2)]


def test_begun_and_its_time_belong_together(
    recorder: Recorder, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that begins during the read makes it begin again."""
    recorder.begin(1, 1.5)

    with monkeypatch.context() as patch:
        # The first read is of the magic word, the second of the number.
        patch.setattr(page, "_words", Between(page._words, 2, lambda: recorder.begin(2, 2.5)))
        assert page.begun() == (2, 2.5)


@pytest.mark.parametrize("noise", [b"\xff", b"\x01", b"spoilt!"])
def test_a_page_that_makes_no_sense_is_refused(
    recorder: Recorder, page: Page, noise: bytes
) -> None:
    """User code that writes where it should not costs the page, not the dispatcher."""
    recorder.begin(1, 0.0)
    recorder._view[:] = (noise * PAGE_SIZE)[:PAGE_SIZE]

    with pytest.raises(PageError):
        page.begun()
    with pytest.raises(PageError):
        page.published()


def test_reports_that_do_not_add_up_are_refused(recorder: Recorder, page: Page) -> None:
    """Whole records are published, or the page is not to be trusted."""
    recorder.publish(packed(1)[:-1])

    with pytest.raises(PageError):
        page.published()


@pytest.mark.parametrize("at", [1, 2])
def test_a_task_begun_during_its_revocation_goes_to_one_side(
    recorder: Recorder, page: Page, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """After the mark the worker sees it; after the look at what has begun it is too late to run."""
    ran: list[bool] = []
    words = Between(page._words, at, lambda: ran.append(recorder.begin(1, 0.0)))
    monkeypatch.setattr(page, "_words", words)

    is_taken = page.revoke(1)

    assert ran == [False]
    assert is_taken is (at == 2)  # else the worker reports that it has skipped it
    monkeypatch.undo()


@pytest.mark.parametrize("at", [1, 2])
def test_a_task_revoked_during_its_begin_goes_to_one_side(
    recorder: Recorder, page: Page, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Once *begun* is written the dispatcher leaves it to the worker, which runs or reports it."""
    taken: list[bool] = []
    words = Between(recorder._words, at, lambda: taken.append(page.revoke(1)))
    monkeypatch.setattr(recorder, "_words", words)

    does_run = recorder.begin(1, 0.0)

    assert taken == [False]
    assert does_run is (at == 2)
    monkeypatch.undo()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=60))
def test_the_page_follows_its_protocol(steps: list[tuple[bool, int]]) -> None:
    """Begin and revoke on a real page: each task goes to whoever reached for it first."""
    fd = create_page()
    recorder, page = Recorder(fd), Page(fd)
    begun = 0
    revoked: set[int] = set()
    try:
        for is_workers, seq in steps:
            if is_workers:
                begun += 1
                assert recorder.begin(begun, float(begun)) is (begun not in revoked)
                assert page.begun() == (begun, float(begun))
            else:
                assert page.revoke(seq) is (seq > begun)
                revoked.add(seq)
    finally:
        recorder.close()
        page.close()
        os.close(fd)


def test_concurrent_tasks_have_a_begun_time_each(recorder: Recorder, page: Page) -> None:
    """Numbers may be left out; a place is its task's until another one with it begins."""
    times = {seq: seq + 0.5 for seq in (1, 2, 5, MAX_HANDED, MAX_HANDED + 3, 3 * MAX_HANDED + 4)}
    for seq, at in times.items():
        assert recorder.begin(seq, at)
        assert page.begun() == (seq, at)

    assert {seq: page.begun_at(seq) for seq in times} == times
    recorder.begin(4 * MAX_HANDED + 1, 9.0)
    assert page.begun_at(1) == 9.0


def test_a_time_that_is_none_is_refused(recorder: Recorder, page: Page) -> None:
    """No deadline may be reckoned from it."""
    recorder.begin(1, 1.0)
    for nonsense in (float("nan"), float("-inf"), -1.0):
        recorder.begin(2, nonsense)
        with pytest.raises(PageError):
            page.begun_at(2)
    assert page.begun_at(1) == 1.0


def test_what_has_ended_is_never_late(recorder: Recorder, page: Page) -> None:
    """Its begin is not to be reckoned from any more, though its report may take its time."""
    recorder.begin(1, 1.0)
    recorder.begin(2, 2.0)
    recorder.end(1)

    assert page.begun_at(1) == float("inf")
    assert page.begun_at(2) == 2.0
    assert page.begun() == (2, 2.0)


def test_marks_hold_where_numbers_are_left_out(recorder: Recorder, page: Page) -> None:
    """A revoked task is skipped, also where the next one is far ahead."""
    assert recorder.begin(7, 0.0)
    assert page.revoke(MAX_HANDED + 10)
    assert not recorder.begin(MAX_HANDED + 10, 0.0)
    assert recorder.begin(2 * MAX_HANDED + 10, 0.0)
    assert not page.revoke(2 * MAX_HANDED + 9)
