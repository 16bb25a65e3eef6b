"""How a round is decided: one algorithm a file, behind the seam in ``base``."""
