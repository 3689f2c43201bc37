"""The progress page: the newest value of each running task, and when a doorbell rings for it."""

from __future__ import annotations

import pytest
from pages import Between, in_a_process

from trioserver._tasks._recorder import (
    MAX_HANDED,
    PROGRESS_SIZE,
    RECORD_SIZE,
    Page,
    PageError,
    Recorder,
)


def test_the_newest_value_of_each_task_is_told_once(recorder: Recorder, page: Page) -> None:
    """Of those that are asked for; an empty value is one, too."""
    assert page.progressed([1, 2]) == []
    recorder.progress(1, b"old")
    recorder.progress(1, b"new")
    recorder.progress(2, b"")
    recorder.progress(3, b"not asked for")

    assert page.progressed([1, 2, 4]) == [(1, b"new"), (2, b"")]
    assert page.progressed([1, 2, 3]) == []  # the count has not changed: one look
    recorder.progress(2, bytes(PROGRESS_SIZE))
    assert page.progressed([1, 2]) == [(2, bytes(PROGRESS_SIZE))]


def test_a_value_is_its_own_tasks(recorder: Recorder, page: Page) -> None:
    """The place of a task that has ended is used again."""
    recorder.progress(1, b"one")
    assert page.progressed([1 + MAX_HANDED]) == []
    recorder.progress(1 + MAX_HANDED, b"two")
    assert page.progressed([1]) == []
    recorder.progress(9, b"")
    assert page.progressed([1 + MAX_HANDED]) == [(1 + MAX_HANDED, b"two")]


def test_the_doorbell_is_rung_once_for_each_look(recorder: Recorder, page: Page) -> None:
    """Until it has been heard, whatever is written will be seen without another."""
    for _ in range(3):
        assert recorder.progress(1, b"first")
        assert not recorder.progress(1, b"second")
        assert not recorder.progress(2, b"third")
        assert page.progressed([1, 2]) == [(1, b"second"), (2, b"third")]


def test_a_look_before_the_doorbell_counts(recorder: Recorder, page: Page) -> None:
    """It is still on its way when the next value comes, for which another one is rung."""
    assert recorder.progress(1, b"first")
    assert page.progressed([1]) == [(1, b"first")]
    assert recorder.progress(1, b"second")


@pytest.mark.parametrize("at", range(1, 7))
def test_a_value_written_during_a_look_is_told_or_rung_for(
    recorder: Recorder, page: Page, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """At whatever point, and never in halves."""
    recorder.progress(1, b"old")
    rung: list[bool] = []
    words = Between(page._words, at, lambda: rung.append(recorder.progress(1, b"newer")))
    with monkeypatch.context() as patch:
        patch.setattr(page._progress, "_words", words)
        told = page.progressed([1])

    assert told in ([], [(1, b"old")], [(1, b"newer")])
    assert len(rung) == 1
    if told != [(1, b"newer")]:
        # Either it has rung, or the doorbell of the first value is still to be heard.
        assert page.progressed([1]) == [(1, b"newer")]
    assert rung == [True] or at == 1


@pytest.mark.parametrize("at", range(1, 7))
def test_a_value_that_is_being_written_is_left_alone(
    recorder: Recorder, page: Page, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Wherever the writer is; once it is through it rings, or is told of."""
    recorder.progress(1, b"old")
    page.progressed([1])
    seen: list[list[tuple[int, bytes]]] = []
    words = Between(recorder._words, at, lambda: seen.append(page.progressed([1])))
    with monkeypatch.context() as patch:
        patch.setattr(recorder._progress, "_words", words)
        rings = recorder.progress(1, b"newer")

    assert seen in ([[]], [[(1, b"newer")]])
    assert rings
    assert (seen[0] or page.progressed([1])) == [(1, b"newer")]


def test_a_value_too_large_makes_no_sense(recorder: Recorder, page: Page) -> None:
    """It can only have been scribbled."""
    recorder.progress(1, b"value")
    recorder._words[(RECORD_SIZE + RECORD_SIZE) // 8 + 2] = PROGRESS_SIZE + 1

    with pytest.raises(PageError):
        page.progressed([1])


def test_a_writer_killed_in_the_middle_harms_nobody(recorder: Recorder, page: Page) -> None:
    """Its half value is never told; those of other tasks are."""
    recorder.progress(2, b"whole")
    recorder.progress(1, b"half")
    recorder._words[2 * RECORD_SIZE // 8] -= 1  # as it is while the slot is being written

    assert page.progressed([1, 2]) == [(2, b"whole")]


def test_no_value_is_torn_and_no_last_one_missed_at_full_speed(page_fd: int, page: Page) -> None:
    """Two processes race; whoever looks only when the bell rings has the last value in the end."""
    times = 20_000
    with in_a_process(
        page_fd,
        f"""
        import sys
        print(flush=True)
        for number in range(1, {times + 1}):
            size = 1 + number % 5000
            if recorder.progress(1 + number % 2, number.to_bytes(4, "big") * size):
                sys.stdout.buffer.write(b"!")
                sys.stdout.buffer.flush()
        """,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        newest = {1: 0, 2: 0}
        while process.stdout.read(1):
            for seq, body in page.progressed([1, 2]):
                number = int.from_bytes(body[:4], "big")
                assert body == body[:4] * (len(body) // 4)
                assert len(body) // 4 == 1 + number % 5000
                assert number > newest[seq]
                newest[seq] = number

    assert newest == {1: times, 2: times - 1}
