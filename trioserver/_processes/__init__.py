"""Several processes: a manager, its event workers, and the channels between them.

``_running``        run_manager: who is opened within whom, and the end of all
``_manager``        what can be asked of the whole
``_staff``          keeps an event worker at every number: starts, replaces, reloads
``_event_worker``   one life of such a process, seen from the manager
``_signs_of_life``  whether it answers
``_guest``          its tasks, seen from the one dispatcher
``_channel``        the records between the two; ``_room``: the numbers that all of them share
``_boot``           what an event worker is told before anything else
``_entry``          the first moments of its process; ``_inside``: what runs there then
``_membership``     what it has from the server that it is a part of; ``_questions``: asks at once
``_remote``         the dispatcher, as its task pool has it
``_plan``           Plan: what a process knows of an app that it does not import
``_checking``       has a fresh interpreter load and check the app, for a reload
``_forking``        has a forked child do it, at the start
``_python``         how a fresh interpreter is called; ``__main__``: what runs in one

This package imports nothing by itself.
"""
