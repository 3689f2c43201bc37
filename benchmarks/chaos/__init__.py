"""Everything goes wrong at once, and nothing may get lost: ``python -m benchmarks.chaos``.

``__main__``   the command: a real server under clients and killers, and what became of it all
``_plan``      what clients ask for and what killers do, decided by the seed
``_clients``   come, ask, and go in one way or another; ``_killers`` send signals to task workers
``app``        what the server runs; ``tasks``: all that its tasks do
``_verdict``   reads the log of what was accepted, has run and has ended, and finds what is wrong

Task workers load ``app`` and ``tasks``, which therefore import neither Trio nor attrs.
"""
