"""Several processes: a manager, its event workers, and the channels between them.

``_manager``        run_manager: signals, addresses, who is opened within whom, what can be asked
``_staff``          keeps an event worker at every number: starts, replaces, reloads
``_event_worker``   one life of such a process, seen from the manager
``_guest``          its tasks, seen from the one dispatcher; what it asks
``_channel``        the records between the two; ``_room``: the numbers that all of them share
``_boot``           what an event worker is told before anything else
``_entry``          what runs in the process of an event worker
``_membership``     what it has from the server that it is a part of; ``_questions``: asks at once
``_remote``         the dispatcher, as its task pool has it
``_plan``           what a manager knows of an app that it never imports
"""
