"""python -m imtalker.drawn FOLDER"""

import argparse
from pathlib import Path

from .example import main

parser = argparse.ArgumentParser(
    prog="python -m imtalker.drawn",
    description="Writes portrait.png, two_people.png, speech.wav and driving.mp4 into FOLDER: drawn, synthesised.",
)
parser.add_argument("folder", type=Path, metavar="FOLDER", help="an existing folder")
folder = parser.parse_args().folder
if not folder.is_dir():
    parser.error(f"the folder {folder} does not exist: create it first")
main(folder)
