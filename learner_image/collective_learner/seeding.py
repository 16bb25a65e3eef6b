"""Seeds every random generator that the process has, so that the same task gives the same rounds again."""

from __future__ import annotations

import random
import sys

import numpy as np


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's, and those of the frameworks that are imported already.

    Parameters
    ----------
    seed
        Below 2**64; numpy's old generator and TensorFlow take its lower 32 bits.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch, tensorflow = sys.modules.get("torch"), sys.modules.get("tensorflow")
    if torch is not None:
        torch.manual_seed(seed)
    if tensorflow is not None:
        tensorflow.random.set_seed(seed & 0xFFFFFFFF)
