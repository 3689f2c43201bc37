r"""Blocking work: each line that a client sends becomes a mail, sent with the standard library.

    SMTP=127.0.0.1:2525 python -m trioserver examples.mail:App
    printf 'ada@example.org hello\n' | nc -N 127.0.0.1 9505

``smtplib`` blocks, and so may ``on_task``. The task is the server's (`server.task`): a client that
leaves does not take its mail along.
"""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage
from typing import TYPE_CHECKING

from trioserver import EofFraming, Settings

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Task


class App:
    framing = EofFraming(b"\n")
    settings = Settings(bind="127.0.0.1:9505", task_worker_num=2)

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        recipient, _, text = data.decode().partition(" ")
        task_id = await stream.server.task((recipient, text))
        await stream.send_frame(b"accepted as %d" % task_id)

    def on_task(self, task: Task) -> object:
        recipient, text = task.data
        mail = EmailMessage()
        mail["From"] = "trioserver@example.org"
        mail["To"] = recipient
        mail["Subject"] = f"Message {task.id}"
        mail.set_content(text)
        host, _, port = os.environ.get("SMTP", "127.0.0.1:25").rpartition(":")
        with smtplib.SMTP(host, int(port), timeout=10) as smtp:
            smtp.send_message(mail)
        return recipient

    async def on_finish(self, completion: Completion) -> None:
        if completion.error is None:
            print("sent", completion.task_id, "to", completion.result)
        else:
            print("could not send", completion.task_id, completion.error)
