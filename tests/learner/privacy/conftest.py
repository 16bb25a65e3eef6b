"""Small models and data for the tests of differential privacy."""

import pytest

pytest.importorskip("opacus", reason="needs the extra torch-dp")
