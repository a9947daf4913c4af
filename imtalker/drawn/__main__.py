"""python -m imtalker.drawn FOLDER"""

import sys

from .example import main

main(sys.argv[1])
