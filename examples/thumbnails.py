"""CPU work: a client sends a picture, a task worker makes it small, the connection gets it back.

    pip install pillow
    python -m trioserver examples.thumbnails:App
    python examples/thumbnails.py [PORT]          # from another shell: sends a picture, shows sizes

The task belongs to the connection (`stream.task`): when the client leaves, its picture is dropped.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import trio

from trioserver import LengthFraming, Settings

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Task

SIZE = (128, 128)


class App:
    framing = LengthFraming("N")
    settings = Settings(bind="127.0.0.1:9503", task_worker_num=2, package_max_length=16 * 2**20)

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        await stream.task(data)

    def on_task(self, task: Task) -> bytes:
        from PIL import Image  # noqa: PLC0415  # the event worker never needs it

        image = Image.open(io.BytesIO(task.data))
        image.thumbnail(SIZE)
        small = io.BytesIO()
        image.save(small, "PNG")
        return small.getvalue()

    async def on_finish(self, completion: Completion) -> None:
        if completion.error is None:
            await completion.stream.send_frame(completion.result)
        else:
            await completion.stream.send_frame(b"")


def picture(width: int, height: int) -> bytes:
    """A colourful PNG, made on the spot."""
    from PIL import Image  # noqa: PLC0415  # as above

    image = Image.radial_gradient("L").resize((width, height))
    colours = Image.merge(
        "RGB", (image, image.rotate(90), image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    )
    file = io.BytesIO()
    colours.save(file, "PNG")
    return file.getvalue()


async def main(port: int) -> None:
    from trioserver.testing import Client  # noqa: PLC0415  # the server needs no client

    async with await Client.connect(f"127.0.0.1:{port}", framing=App.framing) as client:
        large = picture(1024, 768)
        await client.send(large)
        small = await client.receive()
        print(f"{len(large)} bytes became {len(small)} bytes")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 9503)
