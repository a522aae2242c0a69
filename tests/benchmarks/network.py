"""A network of the benchmark's own: a namespace with nothing but a loopback device, and what the kernel does there by default.

The machine's own settings are somebody's choice and decide a good part of the figures: with BBR for congestion control, and no fq
queue on the loopback device to pace it, the kernel sets a timer for most of what it sends, and 1 MiB through ``tcp_proxy`` takes
242 µs instead of 138. Here it is cubic, Linux's default, unless something else is asked for.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys

CONGESTION = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")
DEFAULT = "cubic"
ALLOWED = "reno"
"""Instead of the default where the machine keeps that to itself: what every network may have."""
MACHINE = "machine"
"""Instead of an algorithm: in the machine's own network, as it is."""
INSIDE = "FORKPROXY_BENCH_NETWORK"
"""In the environment of the program that runs in its own network."""

_SIOCGIFFLAGS = 0x8913  # <linux/sockios.h>
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1  # <linux/if.h>


def enter(congestion: str) -> str:
    """Go on in a network of our own, whose TCP has the algorithm ``congestion``: replaces this process by one that begins again
    there, and there returns the algorithm. Who may not make one (it takes root) stays in the machine's; so says the line printed.

    Where the machine lets no other network have the default, that is ``ALLOWED``.

    Raises SystemExit when the kernel does not know the algorithm, or keeps it to the machine's own network.
    """
    if os.environ.get(INSIDE):
        _raise_loopback()
        _set(congestion)
    elif congestion != MACHINE:
        if _may_make_one():
            os.execvpe("unshare", ["unshare", "--net", sys.executable, *sys.orig_argv[1:]], {**os.environ, INSIDE: "1"})
        print("no network of its own: that takes root and unshare (util-linux). In the machine's:", file=sys.stderr)
    found = CONGESTION.read_text().strip() if CONGESTION.exists() else "unknown"
    print(f"TCP congestion control: {found}", file=sys.stderr)
    return found


def _set(congestion: str) -> None:
    try:
        CONGESTION.write_text(congestion)
    except PermissionError:
        why = f"the machine keeps {congestion} to its own network (net.ipv4.tcp_allowed_congestion_control)"
        if congestion != DEFAULT:
            raise SystemExit(f"--congestion {congestion}: {why}") from None
        print(f"{why}: {ALLOWED} instead", file=sys.stderr)
        CONGESTION.write_text(ALLOWED)
    except OSError as error:
        raise SystemExit(f"--congestion {congestion}: {error.strerror}") from None


def _may_make_one() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
