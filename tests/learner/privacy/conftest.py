"""Lets the audits find the contract that all frameworks keep."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
