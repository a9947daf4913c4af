"""What would be published: whole, small, valid, one version everywhere, light to import, at home on every system."""

import ast
import copy
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import imtalker

if sys.version_info < (3, 11):
    pytest.skip("reading pyproject.toml takes Python 3.11", allow_module_level=True)

import release

ROOT = release.ROOT


def _is_checkout() -> bool:
    try:
        return "release.py" in " ".join(release._git("ls-files", "--cached", "tests"))
    except (OSError, subprocess.CalledProcessError):
        return False


in_git = pytest.mark.skipif(not _is_checkout(), reason="no git, or not a checkout of this project")


@in_git
def test_the_registry_would_take_it(capsys):
    assert release.main([]) == 0
    assert "rules are kept" in capsys.readouterr().out


@in_git
@pytest.mark.parametrize(
    ("place", "value", "rule"),
    [
        ("project.name", "ComfyUI-IMTalker", "ComfyUI in it"),
        ("project.name", "1mtalker", "name: letters"),
        ("project.version", "0.1", "X.Y.Z"),
        ("project.license", "LICENSE", "license"),
        ("project.dependencies", ["opencv-python>=4.8", "torch>=2"], "nothing that ComfyUI brings"),
        ("project.dependencies", ["opencv-python==4.8"], "no upper bound"),
        ("project.classifiers", ["Environment :: GPU :: Nvidia"], "classifiers"),
        ("project.urls.Repository", "https://example.org", "Repository"),
        ("tool.comfy.PublisherId", "", "PublisherId"),
        ("tool.comfy.Icon", "https://raw.githubusercontent.com/a/b/main/docs/icon.png", "Icon"),
        ("tool.comfy.requires-comfyui", ">=0.3", "requires-comfyui"),
        ("tool.comfy.includes", ["dist"], "includes"),
    ],
)
def test_a_broken_rule_is_named(place, value, rule):
    found = copy.deepcopy(release.settings())
    *path, last = place.split(".")
    table = found
    for name in path:
        table = table[name]
    table[last] = value
    assert any(rule in problem for problem in release.problems(found, release.files()))


@in_git
def test_the_zip_holds_the_pack_and_nothing_else(tmp_path):
    names = release.files()
    (tmp_path / "pack.zip").write_bytes(release.packed(names))
    with zipfile.ZipFile(tmp_path / "pack.zip") as archive:
        assert archive.namelist() == names
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"imtalker", "nodes", "web", "workflows", "subgraphs", "locales"}
    assert [name for name in names if name.startswith("web/docs/")]
    missing = release.problems(release.settings(), [name for name in names if name != "workflows/01 First try.jpg"])
    assert missing == ["every workflow with its picture is published"]


def test_one_version_everywhere():
    version = release.settings()["project"]["version"]
    assert imtalker.__version__ == version
    newest = re.search(r"^## (\S+)", (ROOT / "docs/CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest[1] == version


@in_git
def test_a_wheel_holds_the_package_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools", minversion="77")  # as pyproject.toml asks
    for name in release.files():
        if name.startswith("imtalker/") or "/" not in name:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    built = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(tmp_path / "dist" / built.stdout.splitlines()[-1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    code_and_weights = re.compile(r"imtalker/(.*\.py|py\.typed|avatar/.*|live/page/.*)")
    assert names == {name for name in release.files() if code_and_weights.fullmatch(name)}


# Light to import


HEAVY = ("scipy", "cv2", "av", "transformers", "PIL", "huggingface_hub", "tqdm", "ray", "c2pa", "triton.language")


def test_importing_takes_little_beyond_torch():
    code = (
        "import sys, time, torch; before = set(sys.modules); start = time.process_time(); import imtalker;"
        "print(time.process_time() - start); print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.splitlines()
    assert not set(HEAVY) & set(modules.split())
    assert float(seconds) < 0.5


# At home on every system


SHIPPED = [ROOT / "__init__.py", *(ROOT / "imtalker").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]
# of modules that exist everywhere, what exists on Linux and macOS alone
POSIX = {
    "os": "fork forkpty getuid geteuid getgid getpgid setsid killpg kill mkfifo uname sync statvfs chown getloadavg "
    "nice wait4 sched_getaffinity symlink link chmod rename",
    "signal": "SIGKILL SIGHUP SIGALRM SIGUSR1 SIGUSR2 SIGCHLD alarm pause setitimer",
    "multiprocessing": "Process Pool",  # a start method must be chosen, and fork is not everywhere
}
MODULES = {"fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "readline", "posix", "syslog"}


def posix_only(tree: ast.AST) -> list[str]:
    """What of a file is not on Windows, or in a place that Windows has not got, by line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"{node.lineno}: import {name}" for name in names if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Attribute) and node.attr in POSIX.get(getattr(node.value, "id", ""), "").split():
            found.append(f"{node.lineno}: {node.value.id}.{node.attr}")
        if isinstance(node, ast.Constant) and re.match(r"/(tmp|dev|proc|usr|home|var|etc)(/|$)", str(node.value)):
            found.append(f"{node.lineno}: {node.value}")
        if isinstance(node, ast.Call) and _opens_text_of_unknown_encoding(node):
            found.append(f"{node.lineno}: text without an encoding")
    return found


def _opens_text_of_unknown_encoding(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if "encoding" in {keyword.arg for keyword in call.keywords}:
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) <= (name == "write_text")
    if isinstance(call.func, ast.Name) and name == "open":
        constants = (part for mode in call.args[1:2] for part in ast.walk(mode) if isinstance(part, ast.Constant))
        return not any("b" in str(part.value) for part in constants)
    return False


def test_shipped_code_is_at_home_on_windows_and_macos():
    found = {path.relative_to(ROOT).as_posix(): posix_only(ast.parse(path.read_text("utf-8"))) for path in SHIPPED}
    # asked only where os.name is not "nt", see its test below
    assert {line.split(": ")[1] for line in found.pop("imtalker/media/atomic.py")} == {"os.kill", "import fcntl"}
    # the start of a path to refuse
    assert [line.split(": ")[1] for line in found.pop("imtalker/media/files.py")] == ["/proc/"]
    # where Linux keeps its fonts; Windows and macOS have folders of their own there
    assert [line.split(": ")[1] for line in found.pop("imtalker/media/lettering.py")] == ["/usr/local/share:/usr/share"]
    assert not {name: lines for name, lines in found.items() if lines}


@pytest.mark.parametrize(
    "line",
    [
        "import fcntl",
        "from resource import getrusage",
        "os.fork()",
        "signal.alarm(1)",
        "open('/tmp/x', 'rb')",
        "open(path)",
        "path.read_text()",
        "path.write_text(text)",
    ],
)
def test_what_is_not_would_be_found(line):
    assert posix_only(ast.parse(line))


def test_no_process_is_ended_where_asking_for_it_would_end_it(monkeypatch, tmp_path):
    from imtalker.media import atomic

    def ended(*arguments):
        raise AssertionError("os.kill ends a process on Windows")

    (tmp_path / ".o.partial-4.mp4").touch()
    monkeypatch.setattr(atomic.os, "kill", ended)
    monkeypatch.setattr(atomic, "os", _Windows(atomic.os))
    atomic.remove_stale(tmp_path / "o.mp4")
    assert not list(tmp_path.iterdir())


class _Windows:
    """The module os, under another name: the paths of this machine still work."""

    name = "nt"

    def __init__(self, module):
        self.module = module

    def __getattr__(self, key: str):
        return getattr(self.module, key)


def test_file_names_are_the_same_to_every_disk():
    """No two that differ in capitals alone, none that Windows refuses."""
    names = [path.relative_to(ROOT).as_posix() for path in (*SHIPPED, *(ROOT / "web").rglob("*"))]
    assert len({name.lower() for name in names}) == len(set(names))
    reserved = {"con", "prn", "aux", "nul"}
    assert not [name for name in names if re.search(r'[<>:"|?*\\]', name) or Path(name).stem.lower() in reserved]
