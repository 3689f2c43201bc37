"""Servers that do the same work: one awaited handler call for each line, ``+PONG`` as its reply.

Each prints the port that it listens on, on 127.0.0.1, and serves until it is killed. All are as
fast as their design allows while they stay general: frames have a maximum length, handlers are
called in order and may await anything, and a client that does not read slows down its own
connection and nothing else. The name of a module is what ``python -m`` runs.
"""
