"""Running ComfyUI servers with this pack, tiny models and small media; tests skip where ComfyUI is not installed."""

import io
import uuid
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from browser import open_browser, open_page
from drawing import POSE, Drawing, look_at, two_editors
from PIL import Image
from server import NEWEST_FRONTEND, VERSIONS, Server, comfyui, is_installed, newest_frontend
from tiny import tiny_generator, tiny_renderer

from imtalker import save_weights
from imtalker.weights.checkpoints import convert

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Puts test_first_try.py before the other tests here: it needs servers that nobody has given models and media."""
    positions = [position for position, item in enumerate(items) if item.path.parent == HERE]
    ours = sorted((items[position] for position in positions), key=lambda item: item.path.stem != "test_first_try")
    for position, item in zip(positions, ours, strict=True):
        items[position] = item


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """A function from a version to its server. They all start at once, and run until the session ends."""
    servers = {}
    try:
        for version in VERSIONS:
            if is_installed(version):
                servers[version] = Server(*comfyui(version), tmp_path_factory.mktemp(f"comfy-{version}"))
                _add_neighbour(servers[version].base / "custom_nodes/neighbour")
                servers[version].launch()

        def wait_for(version: str) -> Server:
            if version not in servers:
                path, python, _ = VERSIONS[version]
                pytest.skip(f"no ComfyUI {version} in {comfyui(version)[0]}: set {path} and {python} to test with it")
            servers[version].wait()
            return servers[version]

        yield wait_for
    finally:
        for server in servers.values():
            server.stop()


@pytest.fixture(scope="session", params=VERSIONS)
def fresh(request, running):
    """A server as just installed: no models, no media."""
    server = running(request.param)
    assert not any((server.base / "models").rglob("*.*")), "the tests of a fresh server run first"
    return server


@pytest.fixture(scope="session", params=VERSIONS)
def server(request, running):
    server = running(request.param)
    if not (server.base / "models/imtalker/renderer_v2.safetensors").exists():
        _fill_models(server.base / "models/imtalker")
        for name, content in _media():
            server.upload(name, content)
    return server


@pytest.fixture(scope="session")
def newest(tmp_path_factory):
    """The newer server with the newest frontend; it starts with the first test that asks for it."""
    frontend = newest_frontend()
    if not (frontend / "index.html").is_file() or not is_installed("new"):
        pytest.skip(
            f"no newest frontend in {frontend}: unpack its wheel and set {NEWEST_FRONTEND[0]} to the folder static"
        )
    server = Server(*comfyui("new"), tmp_path_factory.mktemp("comfy-newest"))
    _add_neighbour(server.base / "custom_nodes/neighbour")
    try:
        server.start("--front-end-root", str(frontend))
        for name, content in _media():
            server.upload(name, content)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def newest_page(newest, browser):
    with open_page(browser, newest, 1500, 1100) as page:
        page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield page


@pytest.fixture(scope="session")
def both_editors_newest(newest_page) -> dict:
    return two_editors(newest_page)


@pytest.fixture(params=["litegraph", "vue"])
def pose(newest_page, both_editors_newest, request):
    """The pose editor of a graph that has both, in each of the page's ways to draw nodes."""
    page = newest_page
    page.load(both_editors_newest | {"id": str(uuid.uuid4())}, request.param == "vue")
    look_at(page, 1, 40, 40)
    pose = Drawing(page, POSE)
    pose.settle()
    page.errors.clear()
    page.warnings.clear()
    yield pose
    assert page.errors == []
    assert [text for text in page.warnings if "deprecated" in text.lower() and "IMTalker" in text] == []
    assert not any("input.link" in text for text in page.warnings)


def _fill_models(folder: Path) -> None:
    for generation in ("v1", "v2"):
        save_weights(tiny_renderer(generation), folder / f"renderer_{generation}.safetensors")
        save_weights(tiny_generator(generation), folder / f"generator_{generation}.safetensors")
    # as published before there was one file for both, and as `convert --split` writes it
    convert(folder / "generator_v2.safetensors", folder / "split.safetensors", split_wav2vec=True)
    whole = (folder / "renderer_v2.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])


def _add_neighbour(folder: Path) -> None:
    """Another pack whose packages have the names of ours."""
    for package in ("nodes", "utils", "imtalker"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f"WHOSE = 'the neighbour\\'s {package}'\n")
    (folder / "__init__.py").write_text((HERE / "neighbour.py").read_text())
    (folder / "oddities.py").write_text((HERE / "oddities.py").read_text())


def _media() -> list[tuple[str, bytes]]:
    def picture(width: int, height: int, mode: str = "RGB") -> bytes:
        y, x = np.mgrid[0:height, 0:width]
        pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(buffer := io.BytesIO(), "PNG")
        return buffer.getvalue()

    def sound(seconds: float) -> bytes:
        with wave.open(buffer := io.BytesIO(), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            tone = np.sin(np.arange(round(seconds * 16000)) * 0.08) * 8000
            file.writeframes(tone.astype("<i2").tobytes())
        return buffer.getvalue()

    def video(frames: int) -> bytes:
        with av.open(buffer := io.BytesIO(), "w", format="mp4") as file:
            stream = file.add_stream("libx264", rate=24)
            stream.width = stream.height = 96
            stream.pix_fmt = "yuv420p"
            for number in range(frames):
                pixels = np.full((96, 96, 3), number * 8, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
            file.mux(stream.encode(None))
        return buffer.getvalue()

    return [
        ("square.png", picture(80, 80)),
        ("wide.png", picture(160, 120)),
        ("grey_alpha.png", picture(64, 64, "LA")),
        ("speech.wav", sound(1.0)),
        ("long.wav", sound(8.0)),
        ("driving.mp4", video(18)),
    ]
