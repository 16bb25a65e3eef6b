"""`python -m collective_operator` is `collective`, for where the console script is not on the PATH."""

import sys

from collective_operator.cli import main

sys.exit(main())
