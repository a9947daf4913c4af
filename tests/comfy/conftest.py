"""A server of each supported ComfyUI, with this pack, made-up models and small media; skipped where there is none."""

import io
import os
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from server import Server
from tiny import tiny_generator, tiny_renderer

from imtalker import save_weights
from imtalker.weights.checkpoints import convert

# version: (variable with its folder, variable with its Python, the folder where there is no such variable)
VERSIONS = {
    "0.3.64": ("COMFYUI_PATH", "COMFYUI_PYTHON", "~/comfy/ComfyUI"),
    "new": ("COMFYUI_PATH_NEW", "COMFYUI_PYTHON_NEW", "~/comfy/ComfyUI-0.33"),
}


def installed(version: str, base: Path) -> Server:
    """Not started yet."""
    path, python, default = VERSIONS[version]
    comfy = Path(os.environ.get(path, default)).expanduser()
    interpreter = Path(os.environ.get(python, comfy / ".venv/bin/python")).expanduser()
    if not (comfy / "main.py").is_file() or not interpreter.exists():
        pytest.skip(f"no ComfyUI {version} in {comfy}: set {path} and {python} to test with it")
    return Server(comfy, interpreter, base)


@pytest.fixture(scope="session", params=VERSIONS)
def server(request, tmp_path_factory):
    server = installed(request.param, tmp_path_factory.mktemp(f"comfy-{request.param}"))
    _fill_models(server.base / "models/imtalker")
    _add_neighbour(server.base / "custom_nodes/neighbour")
    server.start()
    for name, content in _media():
        server.upload(name, content)
    yield server
    server.stop()


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
    (folder / "__init__.py").write_text((Path(__file__).parent / "neighbour.py").read_text())


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
