"""Where the memory of parts comes from, for processes that move many of them.

A part has a megabyte, which glibc's malloc gets from the kernel and gives back each time: its pages are zeroed and
mapped anew for every part, which costs a fifth of a transfer. Told to keep a few freed megabytes, it uses the same
pages again.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_PARTS_BYTES = 8 << 20
"""Above a part of any peer, and far below a model: whole models still go back to the kernel at once."""
_KEPT_BYTES = 32 << 20


def keep_freed_parts() -> None:
    """Have this process keep a bounded amount of freed memory; nothing happens where malloc is not glibc's."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, _PARTS_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
