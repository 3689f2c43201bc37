"""Processes die, or are reloaded, under load: ``python -m benchmarks.upheaval --mode kill|reload``.

``__main__``   the command: a real server under clients and upheavals, and what became of it all
``_clients``   connect, ask and connect again, and find what is wrong with answers
``_upheavals`` the killer of processes, and the reloader of code that changes
``_watch``     what the system says of the server's processes, second by second
``app``        what the server runs: it writes down what is posted, has run and has ended
``_verdict``   reads that, and finds what was lost, doubled, or cut

Task workers load ``app``, which therefore imports neither Trio nor attrs.
"""
