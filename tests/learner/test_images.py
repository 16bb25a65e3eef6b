from __future__ import annotations

import numpy as np
import torch

from collective_learner import normalize_img


def test_pixels_become_floats_of_the_same_kind() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    image, label = normalize_img(pixels, "seven")
    assert (image.dtype, image.shape, label) == (np.float32, (4, 8, 8), "seven")
    assert (image.min(), image.max()) == (0, 1)
    tensor, label = normalize_img(torch.from_numpy(pixels), torch.tensor(7))
    assert (tensor.dtype, int(label)) == (torch.float32, 7)
    assert np.array_equal(tensor.numpy(), image)
