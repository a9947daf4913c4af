"""python -m imtalker"""

import sys

from .cli import main

sys.exit(main())
