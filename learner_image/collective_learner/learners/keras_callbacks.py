"""What a learner hears of Keras' training while it goes on."""

from __future__ import annotations

from collections.abc import Callable

import keras


class Stopping(keras.callbacks.Callback):
    """Asks before every batch whether to go on; it wants no logs, for which Keras would wait for the device."""

    def __init__(self, go_on: Callable[[], None]) -> None:
        super().__init__()
        self._ask = go_on

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Ask before the first batch is made ready."""
        self._ask()

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        """Ask."""
        self._ask()

    def on_test_batch_begin(self, batch: int, logs: object = None) -> None:
        """Ask, in a validation."""
        self._ask()


class Counting(keras.callbacks.Callback):
    """Counts what was trained on, each batch when the next begins; a smaller one counts as the others do."""

    def __init__(self, count: Callable[[int], None], batch_size: int) -> None:
        super().__init__()
        self._count, self._batch_size = count, batch_size
        self._last = 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Count from nothing."""
        self._last = 0

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        """Count those that have ended."""
        self._count(self._batch_size * (batch - self._last))
        self._last = batch

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Count the last batch."""
        self._count(self._batch_size)
