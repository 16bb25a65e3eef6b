"""Messages between a learner and a rank: pickled into a pipe, the tensors in them through memory that both see.

PyTorch can share tensors between processes by itself, with two drawbacks here: it does so in /dev/shm, which has 64 MiB
in a container, and a process that writes more dies of SIGBUS; and it moves the sender's own tensors there. So each
direction has a file of its own that is nowhere but in memory, grows with what it carries, and goes with its processes.

A message's memory is written again by the next one. Who reads copies the tensors out and says that it has; the learner
looks at `unread` before it sends again, and a rank sends nothing twice without being asked.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import struct
import tempfile
from multiprocessing.connection import Connection
from typing import Any

import torch

_ALIGNED = 64
_HEADER = struct.Struct("<Q?")
"""Bytes of tensors, and whether their memory is to be given back when they were read."""
_READ = b""


def memory_file() -> int:
    """Open a file that is in memory alone, or on a disk where the system has no such files, and return its descriptor.

    It has no name, so nothing is left of it when the last process that has it open ends.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("collective-learner")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class ClosedError(Exception):
    """The other side has gone."""


class Channel:
    """One end of a connection.

    Parameters
    ----------
    connection
        Both ways.
    outgoing, incoming
        Descriptors of the memory files of what is sent and of what is received; closed with the channel.
    """

    def __init__(self, connection: Connection[bytes, bytes], outgoing: int, incoming: int) -> None:
        self.connection = connection
        self.unread = False
        """Whether a message that was sent has not been read yet."""
        self._outgoing, self._incoming = _Memory(outgoing), _Memory(incoming)

    def send(self, message: object, *, keep: bool = False) -> None:
        """Send a message; tensors in it may be anywhere, and arrive as plain ones.

        Parameters
        ----------
        keep
            Keep the memory for the next message, which has the same size.

        Raises
        ------
        ClosedError
            There is nobody to read it.
        """
        pickler = _Pickler()
        pickler.dump(message)
        if pickler.size:
            memory = self._outgoing.mapped(pickler.size, grow=True)
            for offset, tensor in pickler.tensors:
                _part(memory, offset, tensor.dtype, tensor.shape).copy_(tensor)
        self.unread = True
        self._write(_HEADER.pack(pickler.size, not keep) + pickler.pickled)

    def receive(self, device: torch.device | str = "cpu") -> Any:
        """Wait for a message, with its tensors on the device, and say that it was read.

        Raises
        ------
        ClosedError
            None will come.
        """
        while (message := self.take(device)) is None:
            pass
        return message

    def take(self, device: torch.device | str = "cpu") -> Any:
        """Take what has come: a message, as `receive` does, or None for the word that the last one was read."""
        try:
            frame = self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise ClosedError from error
        if frame == _READ:
            self.unread = False
            return None
        size, release = _HEADER.unpack_from(frame)
        memory = self._incoming.mapped(size) if size else torch.empty(0, dtype=torch.uint8)
        message = _Unpickler(frame[_HEADER.size :], memory, device).load()
        if size and release:
            self._incoming.release()
        self._write(_READ)
        return message

    def _write(self, frame: bytes) -> None:
        try:
            self.connection.send_bytes(frame)
        except OSError as error:
            raise ClosedError from error

    def close(self) -> None:
        """Close this end."""
        self.connection.close()
        self._outgoing.close()
        self._incoming.close()


class _Memory:
    """A memory file, mapped as often as its size changes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mapped = torch.empty(0, dtype=torch.uint8)

    def mapped(self, size: int, *, grow: bool = False) -> torch.Tensor:
        held = os.fstat(self._descriptor).st_size
        if grow and held < size:
            os.ftruncate(self._descriptor, size)
            held = size
        if self._mapped.numel() != held:
            self._mapped = torch.frombuffer(mmap.mmap(self._descriptor, held), dtype=torch.uint8)
        return self._mapped

    def release(self) -> None:
        self._mapped = torch.empty(0, dtype=torch.uint8)
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        self._mapped = torch.empty(0, dtype=torch.uint8)
        os.close(self._descriptor)


class _Pickler(pickle.Pickler):
    def __init__(self) -> None:
        self._file = io.BytesIO()
        super().__init__(self._file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[tuple[int, torch.Tensor]] = []
        self.size = 0

    @property
    def pickled(self) -> bytes:
        return self._file.getvalue()

    def persistent_id(self, obj: Any) -> tuple[int, torch.dtype, tuple[int, ...]] | None:
        if not isinstance(obj, torch.Tensor):
            return None
        tensor = obj.detach()
        offset = self.size
        self.tensors.append((offset, tensor))
        self.size += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
        return offset, tensor.dtype, tuple(tensor.shape)


class _Unpickler(pickle.Unpickler):
    """Reads what a rank or its learner wrote, each of which started, or was started by, the other."""

    def __init__(self, pickled: bytes, memory: torch.Tensor, device: torch.device | str) -> None:
        super().__init__(io.BytesIO(pickled))
        self._memory, self._device = memory, device

    def persistent_load(self, pid: tuple[int, torch.dtype, tuple[int, ...]]) -> torch.Tensor:
        offset, dtype, shape = pid
        return _part(self._memory, offset, dtype, shape).to(self._device, copy=True)


def _part(memory: torch.Tensor, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    count = 1
    for length in shape:
        count *= length
    if not count:
        return torch.empty(shape, dtype=dtype)
    return memory[offset : offset + count * dtype.itemsize].view(dtype).view(shape)
