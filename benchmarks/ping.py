"""Requests per second over 50 connections: ``PING`` in, ``PONG`` out, one awaited call a frame."""

from __future__ import annotations

import multiprocessing
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from trioserver import EofFraming, Settings, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection as Pipe

    from trioserver import Connection

CONNECTIONS: Final = 50
SECONDS: Final = 1.0
REQUEST: Final = b"PING\r\n"
REPLY: Final = b"PONG\r\n"


class Ours:
    """The app."""

    framing = EofFraming(b"\r\n")

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        await stream.send_all(REPLY)


async def serve_ours(pipe: Pipe) -> None:
    """Serve with trioserver."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Ours, Settings(bind="127.0.0.1:0", log_level="error"))
        pipe.send(int(server.addresses[0].rpartition(":")[2]))


async def serve_plain_trio(pipe: Pipe) -> None:
    """Serve with trio.serve_tcp and the same work for each frame."""

    async def answer(stream: trio.SocketStream, _frame: bytes) -> None:
        await stream.send_all(REPLY)

    async def handle(stream: trio.SocketStream) -> None:
        decoder = Ours.framing.decoder(2**20)
        while data := await stream.receive_some(65536):
            decoder.receive_data(bytes(data))
            while (frame := decoder.next_frame()) is not None:
                await answer(stream, frame)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        pipe.send(listeners[0].socket.getsockname()[1])


def _run_server(serve_it: Callable[[Pipe], object], pipe: Pipe) -> None:
    trio.run(serve_it, pipe)  # type: ignore[arg-type]  # a coroutine function


def requests_per_second(serve_it: Callable[[Pipe], object], pipeline: int) -> float:
    """Serve in a process of its own, and load it from this one."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=_run_server, args=(serve_it, theirs), daemon=True)
    server.start()
    try:
        return _load(ours.recv(), pipeline)
    finally:
        server.kill()
        server.join()


def _load(port: int, pipeline: int) -> float:
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    batch, wanted = REQUEST * pipeline, len(REPLY) * pipeline
    done = 0
    try:
        end = time.perf_counter() + SECONDS
        began = time.perf_counter()
        while time.perf_counter() < end:
            for sock in sockets:
                sock.sendall(batch)
            for sock in sockets:
                got = 0
                while got < wanted:
                    got += len(sock.recv(65536))
                done += pipeline
        return done / (time.perf_counter() - began)
    finally:
        for sock in sockets:
            sock.close()


def _case(pipeline: int) -> dict[str, Callable[[], float]]:
    return {
        "trioserver": partial(requests_per_second, serve_ours, pipeline),
        "trio.serve_tcp": partial(requests_per_second, serve_plain_trio, pipeline),
    }


CASES: Final = [
    (f"PING, {CONNECTIONS} connections, pipeline {pipeline}", "requests/s", _case(pipeline))
    for pipeline in (1, 16)
]
