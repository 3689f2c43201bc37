"""Tasks: how they are posted, dispatched, run in worker processes, and reported.

The path of one task, and the module that owns each step:

``_task_calls``      TaskCalls: what users ask for; ``_options``: with which limits
``_pool``            Pool: gives it an id, knows who waits for it (``_job``: its state)
``_payloads``        pickles it
``_entrance``        lets it in if there is room (``_accounts``: what each connection has posted)
``_admission``       makes its poster wait in line
``_calls``           posts several and waits for how they end
``_dispatcher``      Dispatcher: what becomes of every job (``_policy``: as the settings ask)
``_placing``         which worker gets it; ``_run_times``: how much work should travel at a time
``_watching``        what is late, stuck or slow; ``_replacing``: which worker must go
``_seats``           which workers there are, while fresh ones take the numbers of old ones
``_attempts``        what the end of an attempt means
``_books``           where every job is; ``_queue``: those that no worker has in hand
``_statistics``      all of it in numbers; ``_snapshot``: how the books become these
``_workers``         a dispatcher with its engine at work and its alarm set
``_engine``          the seam: runs jobs on workers, and can kill them
``_local``           LocalTaskWorkers, an engine of processes: starts, reloads and stops them
``_slot``            one of its seats, which has a process at any time
``_worker_process``  one life of such a process; ``_door``, ``_booting``: how it begins
``_one_long_call``   notices that it ends
``_stacks``          the Python stack of a task that runs in it
``_conversation``    what is said between the two: orders out, reports in
``_inside``          what runs in it; ``_lifeline``: so that it cannot outlive its server
``_link``            its end of the socket; ``_leaving``: how it ends by itself
``_sync_loop``       takes orders one by one, or ``_async_loop`` several at once
``_running_orders``  one order, whatever the user's code does; ``_task``: Task, what that sees
``_wire``            the records between the two
``_recorder``        the memory that survives a death; ``_progress_page``: its part for progress
``_arena``           memory for large bodies, behind that one
``_worker_page``     that memory as the dispatcher's side has it
``_inline``          another engine: no processes, for tests; ``_inline_worker``: one of its workers
``_finishing``       the loops behind the channel of completions, which call ``on_finish``
``_progress``        the values on their way to ``on_progress``
``_values``          Completion, what users see of a task that has ended

This package imports nothing by itself, because task workers load it.
"""
