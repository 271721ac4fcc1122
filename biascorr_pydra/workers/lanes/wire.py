"""Messages between the submitting process and its lanes: bytes with their length before them."""

from __future__ import annotations

import socket
import struct

__all__ = ["receive", "send"]

LENGTH = struct.Struct("!Q")


def send(channel: socket.socket, content: bytes) -> None:
    """Send one message whole."""
    channel.sendall(LENGTH.pack(len(content)) + content)


def receive(channel: socket.socket) -> bytes | None:
    """The next message, or None where the other end has closed or died."""
    head = _exactly(channel, LENGTH.size)
    return None if head is None else _exactly(channel, LENGTH.unpack(head)[0])


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    parts = []
    while count:
        try:
            part = channel.recv(min(count, 1 << 20))
        except ConnectionError:
            return None
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
