"""python -m imtalker.avatar"""

import sys

from .train import main

sys.exit(main())
