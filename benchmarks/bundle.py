"""Lays out what a bare machine with a GPU needs to run benchmarks.gpu: python -m benchmarks.bundle FOLDER

The machine brings Python and PyTorch with CUDA, Triton and transformers; what else is needed is put beside the code:
wheels of the packages it lacks in `wheels`, and of a checkout of the published code (--reference) the parts that run in
`reference`. The folder says in `RUN` how to start.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from imtalker.errors import InputError

from . import measure

ROOT = Path(__file__).resolve().parents[1]
OURS = ("imtalker", "benchmarks", "tests/golden", "pyproject.toml", "README.md", "LICENSE", "requirements.txt")
PUBLISHED = ("renderer/*.py", "generator/*.py", "generator/options/*.py")
WHEELS = ("av>=14.2",)
REFERENCE_WHEELS = ("timm", "torchdiffeq")  # what the published code imports
RUN = """pip install --no-index --no-deps {wheels}
python -m benchmarks.gpu {reference}--json gpu.json
"""


def main(arguments: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="made anew")
    parser.add_argument("--reference", type=Path, metavar="PATH", help="checkout of the published code")
    parser.add_argument("--python-version", default="3.12", help="of that machine (%(default)s)")
    parser.add_argument("--platform", default="manylinux_2_28_x86_64", help="of that machine (%(default)s)")
    parser.add_argument("--no-wheels", action="store_true", help="the machine has all packages")
    options = parser.parse_args(arguments)
    if options.folder.exists():
        if not (options.folder / "RUN").is_file():
            raise InputError(f"{options.folder} exists and is no bundle: choose another folder.")
        shutil.rmtree(options.folder)
    for name in tracked():
        copy(ROOT / name, options.folder / name)
    if options.reference:
        for file in [file for pattern in PUBLISHED for file in sorted(options.reference.glob(pattern))]:
            copy(file, options.folder / "reference" / file.relative_to(options.reference))
        if not (options.folder / "reference" / "renderer" / "models.py").is_file():
            raise InputError(
                f"{options.reference} is no checkout of the published code: renderer/models.py is missing."
            )
    if not options.no_wheels:
        download(options, WHEELS + (REFERENCE_WHEELS if options.reference else ()))
    wheels = " ".join(f"wheels/{wheel.name}" for wheel in sorted(options.folder.glob("wheels/*.whl")))
    text = RUN if wheels else RUN.splitlines(keepends=True)[1]
    run = text.format(wheels=wheels, reference="--reference reference " if options.reference else "")
    (options.folder / "RUN").write_text(run)
    for name, size in sizes(options.folder).items():
        print(f"{size / 1e6:8.2f} MB  {name}")
    print(f"\nCopy {options.folder} to the machine and run there:\n\n{run}")
    return options.folder


def tracked() -> list[str]:
    """The repository's own files that the benchmarks need."""
    done = subprocess.run(["git", "ls-files", "--", *OURS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode or not done.stdout:
        raise InputError("A bundle is made from a git checkout of this repository.")
    return done.stdout.splitlines()


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def download(options: argparse.Namespace, packages: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--platform", options.platform, "--python-version", options.python_version]
    if subprocess.run([*command, "--dest", str(options.folder / "wheels"), *packages]).returncode:
        raise InputError("pip could not fetch the wheels: try again with a network, or give --no-wheels.")


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each entry at the top of the folder, and of all."""
    found = {
        entry.name: sum(file.stat().st_size for file in [entry, *entry.rglob("*")] if file.is_file())
        for entry in sorted(folder.iterdir())
    }
    return found | {"in total": sum(found.values())}


if __name__ == "__main__":
    measure.run(main)
