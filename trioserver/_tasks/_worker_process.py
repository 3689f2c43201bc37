"""One life of a task worker process, from its start to its death, seen from the dispatcher's side.

trio-parallel starts the process, kills it and notices its death; inside its one long call the
worker connects to a socket of ours (see `_inside`). So a death shows in two places, in either
order: our socket ends, and the call does. `WorkerProcess.live` returns when both are over and
everything that the worker had sent is read.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
from typing import TYPE_CHECKING, Final

import trio
import trio_parallel

from trioserver._errors import summary_of
from trioserver._memory import rss_of
from trioserver._stacks import StackFile
from trioserver._tasks._conversation import Conversation
from trioserver._tasks._door import open_door
from trioserver._tasks._inside import task_worker_main
from trioserver._tasks._lifeline import prepare_process
from trioserver._tasks._one_long_call import run_noticed
from trioserver._tasks._wire import Answer, Status
from trioserver._tasks._worker_page import WorkerPage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from trioserver._tasks._door import Door
    from trioserver._tasks._job import Job
    from trioserver._tasks._wire import Report

logger = logging.getLogger("trioserver.tasks")

_SLOW_START: Final = 10.0
"""Seconds from its boot after which a worker that is not ready is complained of."""
_SETTLING_TIME: Final = 0.1
_CLOSING_TIME: Final = 0.05
"""Seconds that the event loop may spend on waiting for a process that closes its descriptors."""
_DEATH_TIME: Final = 1.0
"""Seconds between the first sign of a death and the use of more force."""
_UNLIMITED: Final = 1 << 62
"""Bytes; as many as a record's size can say, and some to spare."""


class WorkerProcess:
    """A process that runs jobs: one after the other, or several at once if they are coroutines.

    Args:
      worker_id: The number that it has in the pool, and that its successors will have.
      spec: Where it finds the app: ``module:qualname``.
      on_boot: Called when the process is itself and no longer its interpreter's start.
      on_ready: Called when it takes jobs.
      on_reports: Called with the reports of ended jobs as they come.
      max_task_size: Bytes of a job's pickled data, and of its result, at the most.
      task_concurrency: How many jobs run at once where the app's ``on_task`` is a coroutine
        function.
      on_posted: Called with the seq of a job that runs and the pickled data of a new task that it
        posts, before that job is reported; `answer_post` must follow. Without it all are refused.
      on_progress: Called with seqs of jobs that run, and the pickled values that are their newest.
    """

    def __init__(
        self,
        worker_id: int,
        spec: str,
        on_boot: Callable[[], None],
        on_ready: Callable[[], None],
        on_reports: Callable[[Sequence[Report]], None],
        *,
        max_task_size: int = _UNLIMITED,
        task_concurrency: int = 1,
        on_posted: Callable[[int, bytes], None] | None = None,
        on_progress: Callable[[Sequence[tuple[int, bytes]]], None] | None = None,
    ) -> None:
        self.worker_id = worker_id
        self.pid: int | None = None
        self.is_ready = False
        self.exit_code: int | None = None
        self.start_failure: str | None = None
        """The traceback of an app that does not import or open in the worker."""
        self._spec = spec
        self._on_boot = on_boot
        self._on_ready = on_ready
        self._on_reports = on_reports
        self._max_task_size = max_task_size
        self._task_concurrency = task_concurrency
        self._on_posted = self._refuse_post if on_posted is None else on_posted
        self._on_progress = on_progress
        self._page: WorkerPage | None = None
        self._stacks: StackFile | None = None
        # Since it came in by its door.
        self._sock: socket.socket | None = None
        self._conversation: Conversation | None = None
        # While it lives.
        self._nursery: trio.Nursery | None = None
        self._process = trio.CancelScope()
        self._listening = trio.CancelScope()
        self._started = trio.Event()
        # Whether its call has nothing to do any more but to wait for its end.
        self._is_settled = False
        self._ended = trio.Event()

    # What the engine calls

    def start(self, jobs: Sequence[Job]) -> None:
        """Hand over ``jobs``."""
        assert self._conversation is not None, "only a worker that is ready is handed jobs"
        self._conversation.hand(jobs)

    def cancel(self, seq: int) -> None:
        """Have job ``seq``, which has begun, cancel itself; only a coroutine does."""
        assert self._conversation is not None, "only a worker that is ready has jobs"
        self._conversation.cancel(seq)

    def answer_post(self, seq: int, task_id: int, answer: Answer, reason: str = "") -> None:
        """Tell job ``seq`` what became of its oldest post that has no answer yet.

        Args:
          seq: The job that has posted.
          task_id: The new task's id, 0 for none.
          answer: Whether it was accepted.
          reason: Why it was not.
        """
        assert self._conversation is not None, "only a worker that is ready has jobs"
        self._conversation.answer_post(seq, task_id, answer, reason)

    def stop(self, kill_after: float = math.inf) -> None:
        """Have it leave by itself after what it has been given; kill it if it takes so long."""
        if self.is_ready and self._conversation is not None and self._nursery is not None:
            self._conversation.tell_to_stop()
            if kill_after < math.inf:
                self._nursery.start_soon(self._insist, kill_after)
        else:
            self._process.cancel()

    def kill(self) -> None:
        """End the process and everything in its session, at once."""
        if self.pid is None or self._nursery is None:
            self._process.cancel()
            return
        # The group first: what a task has started would be orphaned by the death of its leader.
        self._kill_group()
        self._nursery.start_soon(self._insist, _DEATH_TIME)

    def revoke(self, seq: int) -> bool:
        """See `Page.revoke`."""
        assert self._page is not None, "only a worker that is ready is asked"
        return self._page.revoke(seq)

    @property
    def heard_at(self) -> float:
        """When anything came from it."""
        return 0.0 if self._conversation is None else self._conversation.heard_at

    def begun(self) -> tuple[int, float] | None:
        """See `Page.begun`; None if the worker has spoilt the page."""
        assert self._page is not None, "only a worker that was ready is asked"
        return self._page.begun()

    def begun_at(self, seq: int) -> float | None:
        """See `Page.begun_at`; None if the worker has spoilt the page."""
        assert self._page is not None, "only a worker that was ready is asked"
        return self._page.begun_at(seq)

    def memory(self) -> int | None:
        """Bytes that the process holds in memory (RSS); None where that cannot be known."""
        return rss_of(self.pid)

    def unsent_reports(self) -> list[Report]:
        """See `Page.published`; nothing if the worker has spoilt the page."""
        if self._page is None or self._conversation is None:
            return []
        return self._page.published(self._conversation.check)

    async def frames(self) -> list[str]:
        """See `StackFile.read`."""
        assert self._stacks is not None, "only a worker that is ready is asked"
        assert self.pid is not None, "as above"
        return await self._stacks.read(self.pid)

    async def wait_ended(self) -> None:
        """Until the process is dead."""
        await self._ended.wait()

    # Its life

    async def live(self) -> None:
        """Start the process; return when it is dead and all its reports have been passed on."""
        try:
            self._page = page = WorkerPage(self.worker_id)
            self._stacks = stacks = StackFile(f"task worker {self.worker_id}")
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    await self._run(nursery, page, stacks)
                finally:
                    # The nursery takes nothing more while it ends, and the dispatcher hears of
                    # the death only after that.
                    self._nursery = None
                    if self._conversation is not None:
                        self._conversation.hang_up()
                nursery.cancel_scope.cancel()
        except* OSError as group:  # EMFILE and the like: it could not start
            self.start_failure = "; ".join(summary_of(exc) for exc in group.exceptions)
        finally:
            self._hear_last_words()
            self._kill_group()

    async def _run(self, nursery: trio.Nursery, page: WorkerPage, stacks: StackFile) -> None:
        """Let it in and listen to it, until it is dead."""
        with self._listening:
            with open_door() as door:
                # It needs the door no longer than until it has come in.
                nursery.start_soon(self._call, door)
                self._sock, self.pid = await door.admit()
                self._on_boot()
            self._give_descriptors(self._sock, page.fd, stacks.fd)
            self._conversation = Conversation(
                self._sock,
                nursery,
                page.arena,
                max_task_size=self._max_task_size,
                on_start=self._has_started,
                on_reports=self._on_reports,
                on_posted=self._on_posted,
                on_look=self._look_for_progress,
                on_garbled=self._is_garbled,
            )
            nursery.start_soon(self._watch_start)
            nursery.start_soon(self._conversation.empty_arena)
            await self._conversation.listen()
        with trio.move_on_after(_DEATH_TIME):
            await self._ended.wait()
        self._kill_group()

    async def _watch_start(self) -> None:
        """Say that it is not ready yet; how long `on_task_worker_start` may take is its affair."""
        with trio.move_on_after(_SLOW_START):
            await self._started.wait()
        if not self._started.is_set():
            logger.warning(
                "task worker %d (pid %d) is not ready after %g s",
                self.worker_id,
                self.pid,
                _SLOW_START,
            )
            await self._started.wait()
        # What trio-parallel had to do for the start is over long ago, unless the loop was blocked.
        await trio.sleep(_SETTLING_TIME)
        self._is_settled = True

    def close(self) -> None:
        """Give back the page and the socket; nothing can be asked of it then."""
        if self._page is not None:
            self._page.close()
        if self._stacks is not None:
            self._stacks.close()
        if self._sock is not None:
            self._sock.close()

    async def _call(self, door: Door) -> None:
        """The one call that is the process's life, as far as trio-parallel knows."""
        try:
            with self._process:
                async with trio_parallel.open_worker_context(
                    idle_timeout=math.inf, init=prepare_process, grace_period=_DEATH_TIME
                ) as context:
                    call = context.run_sync(
                        task_worker_main,
                        door.address,
                        door.token,
                        self.worker_id,
                        self._spec,
                        self._max_task_size,
                        self._task_concurrency,
                        kill_on_cancel=True,
                        # The default limiter has a token a core, and we hold ours for ever.
                        limiter=trio.CapacityLimiter(1),
                    )
                    await run_noticed(call, self._kill_if_it_ends)
        except trio_parallel.BrokenWorkerError as exc:
            self.exit_code = exc.args[-1].exitcode
        except Exception as exc:  # noqa: BLE001  # EOFError, ConnectionRefusedError, EMFILE: all mean that it could not start
            self.start_failure = summary_of(exc)
        finally:
            self._ended.set()
            self._listening.cancel()

    def _kill_if_it_ends(self) -> None:
        """Kill a process whose call goes on, if it has not died already.

        That changes nothing for one that is dying, whose exit code is settled.
        """
        if self._sock is None:
            return  # it has not come in yet
        # Descriptors are closed one by one, and ours may still have its turn to come.
        if self._is_settled or _has_hung_up(self._sock, _CLOSING_TIME if self.is_ready else 0.0):
            self._kill_group()

    def _give_descriptors(self, sock: socket.socket, *fds: int) -> None:
        try:
            socket.send_fds(sock, [b"\0"], fds)
        except OSError:  # it has died already, which reading will tell
            logger.debug("task worker %d died after its hello", self.worker_id)

    def _has_started(self, status: int, body: bytes) -> None:
        self._started.set()
        if status == Status.READY:
            self.is_ready = True
            self._on_ready()
        else:
            self.start_failure = body.decode()

    def _look_for_progress(self, seqs: Collection[int]) -> None:
        assert self._page is not None, "it was there before the conversation"
        values = self._page.progressed(seqs)
        if values and self._on_progress is not None:
            self._on_progress(values)

    def _refuse_post(self, seq: int, _data: bytes) -> None:
        self.answer_post(seq, 0, Answer.CLOSED, "nobody takes tasks that tasks post")

    def _is_garbled(self) -> None:
        logger.warning("task worker %d sent what are no reports", self.worker_id)
        self.kill()

    def _hear_last_words(self) -> None:
        """What the dead process had sent, and then what it had finished and not sent."""
        if self._conversation is not None:
            self._conversation.end()
            reports = self.unsent_reports()
            if reports:
                self._on_reports(reports)

    async def _insist(self, seconds: float) -> None:
        """Use force, and trio-parallel's own too, should the process not be seen dead by then."""
        with trio.move_on_after(seconds):
            await self._ended.wait()
        self._kill_group()
        self._process.cancel()

    def _kill_group(self) -> None:
        if self.pid is not None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return  # nobody is left in it (macOS says so with EPERM)


def _has_hung_up(sock: socket.socket, seconds: float) -> bool:
    """Whether the peer's end is closed by then, be there data that has not been read or not."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(seconds * 1000))
