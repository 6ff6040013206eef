"""The listening socket that the workers share, and how it is given up without cutting anybody off.

Closing a listening socket resets whoever the kernel has connected and nobody has accepted. So newcomers are turned away
first, at the packet that asks for a connection, and those in the middle of connecting are served.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
import sys
from typing import Final

from scalelite.errors import PortTaken

BACKLOG: Final = 1024
# How long those may take to connect who had begun before newcomers were refused: a round trip, and a busy machine.
_CONNECT_S: Final = 0.2
_QUEUE_S: Final = 0.5
# Of Linux's struct tcp_info, tcpi_unacked: for a listening socket the length of its accept queue.
_QUEUED: Final = slice(24, 28)

# Linux's socket filters (linux/filter.h): a program that is shown a TCP header, and returns how much to keep.
_SO_ATTACH_FILTER: Final = 26
_LOAD_BYTE, _JUMP_IF_ANY_BIT, _RETURN = 0x30, 0x45, 0x06
_FLAGS_AT, _SYN = 13, 0x02
_NO_SYN: Final = (
    (_LOAD_BYTE, 0, 0, _FLAGS_AT),
    (_JUMP_IF_ANY_BIT, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, 0xFFFFFFFF),
)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises PortTaken where there can be none."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
        )
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}:
            raise PortTaken(host, port) from None
        raise


def refuse_newcomers(listener: socket.socket) -> bool:
    """Drop the packets that ask for a connection, in all processes that share the socket and for good.

    Whoever sent one asks again after a second, when the socket is closed, and is refused. Says whether the system lets
    this process do so: sandboxes may keep socket filters from ordinary users, and other systems have none.
    """
    if sys.platform != "linux":
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    packed = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, packed)
    except OSError:
        return False
    return True


async def until_nobody_connects(listener: socket.socket) -> None:
    """Wait until those who had begun to connect are accepted: closing the socket resets them."""
    await asyncio.sleep(_CONNECT_S)
    if sys.platform != "linux":
        return
    deadline = asyncio.get_running_loop().time() + _QUEUE_S
    while asyncio.get_running_loop().time() < deadline:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if not int.from_bytes(info[_QUEUED], sys.byteorder):
            return
        await asyncio.sleep(0)
