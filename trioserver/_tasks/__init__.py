"""Tasks: how they are posted, dispatched, run in worker processes, and reported.

The path of one task, and the module that owns each step:

``_pool``        TaskPool: admits it, gives it an id, knows who waits for it
``_dispatcher``  Dispatcher: one queue for all workers; which job goes where, and what must die
``_local``       LocalTaskWorkers, an engine: real processes under trio-parallel, one socket each
``_inside``      the worker's side of that socket; imports neither trio nor attrs
``_recorder``    the page of shared memory that survives the worker
``_wire``        the records on the socket
``_finishing``   the loops behind the channel of completions, which call ``on_finish``
``_values``      Task and Completion, what users see

This package imports nothing by itself, because task workers load it.
"""
