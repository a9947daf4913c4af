"""The layers of the code: no file imports from a higher one, and no files import each other in a ring."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A file may import its own room and every layer below, never beside or above.
LAYERS = [
    {"errors", "version", "torch_floor"},
    {"media"},
    {"face", "motion", "drawn"},
    {"sampling"},
    {"models"},
    {"weights"},
    {"motion_stream"},
    {"pipeline", "session", "idle", "rigging", "tracking"},
    {"readings", "live"},
    {"train", "dubbing"},
    {"__init__"},  # the public names
    {"cli", "avatar"},
    {"__main__", "nodes", "benchmarks"},
]
HEIGHTS = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}


def sources(root: Path) -> dict[str, Path]:
    """Every module of the engine, the nodes and the benchmarks by its dotted name."""
    files = (path for folder in ("imtalker", "nodes", "benchmarks") for path in sorted((root / folder).rglob("*.py")))
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in files}


def room(module: str) -> str:
    top, *rest = module.split(".")
    return rest[0] if top == "imtalker" else top


def imports(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of this tree that it imports, wherever in the file."""
    files = sources(root)
    found = {module: set() for module in files}
    for module, path in files.items():
        package = module.split(".")[:-1]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
                names = [f"{base}.{alias.name}" for alias in node.names]
            else:
                continue
            found[module] |= {known for name in names if (known := resolve(name, files)) and known != module}
    return found


def resolve(name: str, files: dict[str, Path]) -> str | None:
    """The module that holds a dotted name: itself, its parent, or the __init__ of a package."""
    parts = name.split(".")
    for end in (len(parts), len(parts) - 1):
        known = ".".join(parts[:end])
        if known in files:
            return known
        if f"{known}.__init__" in files:
            return f"{known}.__init__"
    return None


def upward(found: dict[str, set[str]]) -> list[str]:
    return sorted(
        f"{source} -> {target}"
        for source, targets in found.items()
        for target in targets
        if room(source) != room(target) and HEIGHTS[room(target)] >= HEIGHTS[room(source)]
    )


def ring(found: dict[str, set[str]]) -> list[str]:
    """The modules that are left when those that import none of the others are taken away again and again."""
    left = {module: set(targets) for module, targets in found.items()}
    while free := [module for module, targets in left.items() if not targets & left.keys()]:
        for module in free:
            del left[module]
    return sorted(left)


def test_no_file_imports_upward():
    assert upward(imports(ROOT)) == []


def test_no_files_import_each_other_in_a_ring():
    assert ring(imports(ROOT)) == []


def test_every_room_has_its_layer():
    assert {room(module) for module in sources(ROOT)} == HEIGHTS.keys()


def test_the_engine_knows_nothing_of_comfyui():
    outside = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "server", "nodes", "execution"}
    for path in (ROOT / "imtalker").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            assert not {name.split(".")[0] for name in names} & outside, path


@pytest.mark.parametrize(
    ("path", "line", "found"),
    [
        ("imtalker/media/audio.py", "from ..models.config import X", "imtalker.media.audio -> imtalker.models.config"),
        ("imtalker/face/crop.py", "from ..motion import control", "imtalker.face.crop -> imtalker.motion.control"),
        ("imtalker/motion/control.py", "import imtalker.models.config", "imtalker.motion.control -> imtalker.models"),
        ("imtalker/media/audio.py", "def f():\n    from .. import Y", "imtalker.media.audio -> imtalker.__init__"),
    ],
)
def test_an_import_upward_would_be_found(tmp_path, path, line, found):
    for name in ("__init__", "media/audio", "face/crop", "motion/control", "models/config"):
        file = tmp_path / "imtalker" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    assert upward(imports(tmp_path)) == []
    (tmp_path / path).write_text(line)
    assert [row for row in upward(imports(tmp_path)) if row.startswith(found)]


def test_a_ring_would_be_found():
    assert ring({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["a", "b", "c", "d"]
    assert ring({"a": {"b"}, "b": {"c"}, "c": set()}) == []
