"""What ComfyUI's registry would get, and whether it would take it. Offline: Python 3.11's library and git.

python tests/release.py [ZIP] lists the files and the size of the zip, and writes it where a name is given; status 1,
and what is wrong, where the registry's rules (docs.comfy.org/registry/specifications) are not kept.
"""

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9]|[-_.](?![-_.])){0,98}")
VERSION = re.compile(r"\d+\.\d+\.\d+")
SPECIFIER = re.compile(r"(?:[<>]=?|[=~!]=)\d+\.\d+\.\d+(?:,\s*(?:[<>]=?|[=~!]=)\d+\.\d+\.\d+)*")
SYSTEMS = {"OS Independent", "Microsoft :: Windows", "POSIX :: Linux", "MacOS"}
DEVICES = {"NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal"}
# without these it would install and not work, or work and look broken
NEEDED = ("__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md", "imtalker/__init__.py")
MOST = 16_000_000  # bytes; far below the registry's limit, and a sign that something was added by mistake


def settings() -> dict:
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments, "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name]


def files() -> list[str]:
    """Those in git that .comfyignore leaves, as comfy-cli packs them; relative, in order."""
    ignored = set(_git("ls-files", "--cached", "--ignored", "--exclude-from=.comfyignore"))
    return sorted({name for name in _git("ls-files", "--cached") if name not in ignored and (ROOT / name).is_file()})


def packed(names: list[str]) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(ROOT / name, name)
    return buffer.getvalue()


def problems(found: dict, names: list[str]) -> list[str]:
    """Each broken rule in a sentence; `found` is pyproject.toml, `names` what is to be published."""
    project, comfy = found["project"], found["tool"]["comfy"]
    urls = project.get("urls", {})
    rules = {
        "name: letters, digits and single - _ . after a letter": NAME.fullmatch(project["name"]),
        "name: not with ComfyUI in it": "comfyui" not in project["name"].lower(),
        "version: X.Y.Z": VERSION.fullmatch(project.get("version", "")),
        "description is there": project.get("description"),
        "license: a file that is published, or a text": _license(project.get("license"), names),
        "urls: Repository on GitHub": urls.get("Repository", "").startswith("https://github.com/"),
        "PublisherId is there": re.fullmatch(r"[a-z0-9-]+", comfy.get("PublisherId", "")),
        "DisplayName is there": comfy.get("DisplayName"),
        "requires-comfyui: versions X.Y.Z": SPECIFIER.fullmatch(comfy.get("requires-comfyui", "")),
        "includes: folders that are there": all((ROOT / name).is_dir() for name in comfy.get("includes", [])),
        "dependencies are those of requirements.txt": project["dependencies"] == _requirements(),
        "dependencies set no upper bound, and nothing that ComfyUI brings": _modest(project["dependencies"]),
        "classifiers: systems and devices by their names": _classified(project.get("classifiers", [])),
        "Icon: a square picture in git of at most 400 pixels": _picture(comfy.get("Icon"), urls, (1, 1), 400),
        "Banner: a picture in git of 21:9": _picture(comfy.get("Banner"), urls, (21, 9), 4096),
        "all files that are needed are published": set(NEEDED) <= set(names),
        "every workflow with its picture is published": _workflows(names),
        f"the zip has at most {MOST} bytes": len(packed(names)) <= MOST,
    }
    return [rule for rule, kept in rules.items() if not kept]


def _license(entry: object, names: list[str]) -> bool:
    return isinstance(entry, dict) and (entry.get("file") in names or bool(entry.get("text")))


def _requirements() -> list[str]:
    return (ROOT / "requirements.txt").read_text("utf-8").split("\n")[:-1]


def _modest(dependencies: list[str]) -> bool:
    brought = "torch|numpy|transformers|safetensors|pillow|scipy|av|tqdm|psutil|aiohttp|einops"
    pinned = (re.search(r"==|<|~=|!=|@", entry) for entry in dependencies)
    return not any(pinned) and not any(re.match(rf"({brought})\w*\b", entry.lower()) for entry in dependencies)


def _classified(entries: list[str]) -> bool:
    groups = {"Operating System": SYSTEMS, "Environment :: GPU": DEVICES}
    return bool(entries) and all(
        any(entry.startswith(f"{group} :: ") and entry[len(group) + 4 :] in known for group, known in groups.items())
        for entry in entries
    )


def _picture(url: str | None, urls: dict, ratio: tuple[int, int], most: int) -> bool:
    """The URL is that of a PNG of this repository's main branch, of this shape."""
    start = urls.get("Repository", "").replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
    if not (url or "").startswith(start) or url[len(start) :] not in _git("ls-files", "--cached"):
        return False
    header = (ROOT / url[len(start) :]).read_bytes()[:24]
    width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    return header[1:4] == b"PNG" and width * ratio[1] == height * ratio[0] and 0 < width <= most


def _workflows(names: list[str]) -> bool:
    graphs = {name[:-5] for name in _git("ls-files", "--cached", "workflows/*.json")}
    return {f"{graph}{suffix}" for graph in graphs for suffix in (".json", ".jpg")} <= set(names)


def main(arguments: list[str]) -> int:
    names = files()
    content = packed(names)
    print("\n".join(f"{(ROOT / name).stat().st_size:>9,}  {name}" for name in names))
    version = settings()["project"]["version"]
    print(f"version {version}: {len(names)} files, {len(content):,} bytes as a zip")
    if arguments:
        Path(arguments[0]).write_bytes(content)
    broken = problems(settings(), names)
    print("\n".join(f"not kept: {rule}" for rule in broken) or "The registry's rules are kept.")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
