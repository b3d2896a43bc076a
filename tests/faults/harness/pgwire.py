"""PostgreSQL's message framing, version 3, as far as a proxy needs it: PostgreSQL documentation,
"Frontend/Backend Protocol", "Message Formats".

Pure: reads messages from a byte source and follows what a client says of its transaction.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

Read = Callable[[int], bytes]
"""Gives exactly so many bytes, fewer only at the end of the stream."""

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
SYNC = b"S\x00\x00\x00\x04"


class ClosedError(Exception):
    """The stream ended."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message with its type; `kind` is empty for the first message of a client."""

    kind: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        """As it travels."""
        return self.kind + struct.pack("!I", len(self.body) + 4) + self.body


def read_startup(read: Read) -> tuple[int, Message]:
    """The first message of a client and its code: a protocol version or a request."""
    body = _exactly(read, struct.unpack("!I", _exactly(read, 4))[0] - 4)
    return struct.unpack("!I", body[:4])[0], Message(b"", body)


def application_name(startup: Message) -> str:
    """The name that a client gave itself in its first message."""
    words = startup.body[4:].split(b"\0")
    return dict(zip(words[::2], words[1::2], strict=False)).get(b"application_name", b"").decode()


def read_message(read: Read) -> Message:
    """The next message. ClosedError: there is none, or it is cut."""
    head = _exactly(read, 5)
    return Message(head[:1], _exactly(read, struct.unpack("!I", head[1:])[0] - 4))


def _exactly(read: Read, size: int) -> bytes:
    data = read(size)
    if len(data) < size:
        raise ClosedError
    return data


def completed(message: Message) -> str:
    """The tag of a server's CommandComplete: `COMMIT`, `UPDATE 1`; empty for other messages."""
    return message.body[:-1].decode() if message.kind == b"C" else ""


@dataclass(slots=True)
class Dialogue:
    """What a client said: its statements by name, and the texts of the transaction that is open."""

    statements: dict[bytes, str] = field(default_factory=dict)
    portals: dict[bytes, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def hear(self, message: Message) -> str | None:
        """The text of a statement that this message starts, by either protocol."""
        if message.kind == b"Q":
            return self._started(message.body[:-1].decode())
        if message.kind == b"P":
            name, text, _ = message.body.split(b"\0", 2)
            self.statements[name] = text.decode()
        elif message.kind == b"B":
            portal, statement, _ = message.body.split(b"\0", 2)
            self.portals[portal] = self.statements.get(statement, "")
        elif message.kind == b"E":
            return self._started(self.portals.get(message.body.split(b"\0", 1)[0], ""))
        return None

    def _started(self, text: str) -> str:
        if text.upper().startswith("BEGIN"):
            self.texts.clear()
        self.texts.append(text)
        return text

    def commits(self, text: str | None) -> bool:
        """Whether a statement asks for the commit of the transaction."""
        return text is not None and text.strip().rstrip(";").upper() in ("COMMIT", "END")
