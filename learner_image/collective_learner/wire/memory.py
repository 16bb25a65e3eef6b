"""Where the memory of parts comes from, for processes that move many of them.

A part has a megabyte, which glibc's malloc gets from the kernel and gives back each time: its pages are zeroed and
mapped anew for every part, which costs a fifth of a transfer. Told to keep a few freed megabytes, it uses the same
pages again.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_PARTS_BYTES = 8 << 20
"""Above a part of any peer, and far below a model: whole models still go back to the kernel at once."""
_KEPT_BYTES = 32 << 20


def keep_freed_parts(*, in_one_place: bool = False) -> None:
    """Have this process keep a bounded amount of freed memory; nothing happens where malloc is not glibc's.

    Parameters
    ----------
    in_one_place
        For a process that does nothing but move parts: its threads share what was freed, so that dozens of streams cost
        no more than what is under way. Threads that calculate would wait for each other there.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, _PARTS_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    if in_one_place:
        mallopt(_M_ARENA_MAX, 1)
