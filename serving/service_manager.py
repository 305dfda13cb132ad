"""Tells systemd when the server is ready, stops, or hangs (Type=notify, WatchdogSec).

Source: sd_notify(3) and sd_watchdog_enabled(3): datagrams to the socket that NOTIFY_SOCKET names.
"""

import asyncio
import contextlib
import os
import socket

# systemd takes messages at once; where it hangs itself the server goes on.
SEND_SECONDS = 0.5
SOCKET, WATCHDOG = "NOTIFY_SOCKET", "WATCHDOG_USEC"


def notify(state: str) -> None:
    """Sends a state such as READY=1; does nothing where no service manager asks for it."""
    address = os.environ.get(SOCKET, "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    # A server that serves is not to fail because nobody listens to its state.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.settimeout(SEND_SECONDS)
        line.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)


async def keep_alive() -> None:
    """Reports twice per period that the event loop runs; returns at once where there is no watchdog."""
    period = os.environ.get(WATCHDOG, "")
    while period.isdecimal() and int(period):
        notify("WATCHDOG=1")
        await asyncio.sleep(int(period) / 2e6)
