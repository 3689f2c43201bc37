"""The client of Swoole's lesson on tasks, for ``orders.py``.

python examples/client.py [PORT]
"""

from __future__ import annotations

import sys

import trio


async def main(port: int) -> None:
    try:
        with trio.fail_after(0.5):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
    except (OSError, trio.TooSlowError):
        sys.exit("connect failed.")
    async with stream:
        await stream.send_all(b"hello world\n")
        print((await stream.receive_some()).decode(), flush=True)
        await trio.sleep(2)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 9504)
