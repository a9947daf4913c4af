"""A real ComfyUI in a process and folder of its own, and a client that talks to it as the browser does."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import websocket

ROOT = Path(__file__).resolve().parents[2]
PACK = "ComfyUI-IMTalker"
BOOT_SECONDS = 180

# version: (variable with its folder, variable with its Python, default folder)
VERSIONS = {
    "0.3.64": ("COMFYUI_PATH", "COMFYUI_PYTHON", "~/comfy/ComfyUI"),
    "new": ("COMFYUI_PATH_NEW", "COMFYUI_PYTHON_NEW", "~/comfy/ComfyUI-0.33"),
}

# variable with the folder of the newest frontend's files, which the newer server can show instead of its own
NEWEST_FRONTEND = ("COMFYUI_FRONTEND_NEWEST", "~/comfy/frontend-1.58.1/comfyui_frontend_package/static")


def newest_frontend() -> Path:
    """Where the newest frontend's files are, whether they exist or not."""
    variable, default = NEWEST_FRONTEND
    return Path(os.environ.get(variable, default)).expanduser()


def comfyui(version: str) -> tuple[Path, Path]:
    """The checkout and the Python of a version, whether they exist or not."""
    path, python, default = VERSIONS[version]
    comfy = Path(os.environ.get(path, default)).expanduser()
    return comfy, Path(os.environ.get(python, comfy / ".venv/bin/python")).expanduser()


def is_installed(version: str) -> bool:
    comfy, python = comfyui(version)
    return (comfy / "main.py").is_file() and python.exists()


# For tests of our own code, which no version of ComfyUI changes. The oldest is best: it checks the least by itself, so
# that wrong values reach us.
on_one_version = pytest.mark.parametrize("server", [next(filter(is_installed, VERSIONS), "0.3.64")], indirect=True)


@dataclass
class Run:
    """The outcome of one prompt."""

    prompt_id: str
    outputs: dict = field(default_factory=dict)
    messages: list[tuple[str, dict]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)  # JPEG

    def of(self, kind: str) -> list[dict]:
        return [data for name, data in self.messages if name == kind]

    @property
    def succeeded(self) -> bool:
        return bool(self.of("execution_success"))

    @property
    def error(self) -> str | None:
        """The message shown at the node that failed."""
        return next((data["exception_message"].strip() for data in self.of("execution_error")), None)

    @property
    def executed(self) -> set[str]:
        """Nodes that ran, unlike cached ones."""
        return {data["node"] for data in self.of("executing") if data["node"]}

    def files(self, node: str) -> list[dict]:
        return [item for items in self.outputs[node].values() for item in items if isinstance(item, dict)]


class Refusal(Exception):
    """/prompt answered 400; the text holds every message."""


class Server:
    """comfy: a checkout of ComfyUI; python: its interpreter; base: an empty folder for models, input, output, ..."""

    def __init__(self, comfy: Path, python: Path, base: Path):
        self.comfy, self.python, self.base = comfy, python, base
        for name in ("custom_nodes", "models/imtalker", "input", "output", "temp", "user"):
            (base / name).mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (base / "custom_nodes" / PACK).symlink_to(ROOT, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def start(self, *flags: str) -> None:
        self.launch(*flags)
        self.wait()

    def launch(self, *flags: str) -> None:
        command = [self.python, "main.py", "--cpu", "--port", self.address.split(":")[1]]
        command += ["--base-directory", self.base, "--database-url", "sqlite:///:memory:", "--disable-auto-launch"]
        # with models this small on a busy machine, threads that wait for each other take ten times as long as one
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with open(self.base / "log.txt", "wb") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *flags], cwd=self.comfy, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + BOOT_SECONDS
        while True:
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"ComfyUI did not start:\n{self.log()[-4000:]}")
            with contextlib.suppress(OSError):
                self.get("/system_stats")
                return
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log(self) -> str:
        return (self.base / "log.txt").read_text(errors="replace")

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=30) as reply:
            return json.load(reply)

    def post(self, path: str, content: dict) -> dict:
        request = urllib.request.Request(
            f"http://{self.address}{path}", json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            text = reply.read()
            return json.loads(text) if text else {}

    def upload(self, name: str, content: bytes) -> None:
        """Writes a file into input/ as the browser does, which uses this address for images, audio and videos."""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'.encode(),
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'.encode(),
            b"Content-Type: application/octet-stream\r\n\r\n" + content + f"\r\n--{boundary}--\r\n".encode(),
        ]
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        request = urllib.request.Request(f"http://{self.address}/upload/image", b"".join(parts), headers)
        urllib.request.urlopen(request, timeout=30).close()

    def run(self, graph: dict, interrupt_at: int | None = None, timeout: float = 120) -> Run:
        """Runs a graph in API format to its end, or interrupts it when a node reports this much progress."""
        client = uuid.uuid4().hex
        socket = websocket.create_connection(f"ws://{self.address}/ws?clientId={client}", timeout=timeout)
        with contextlib.closing(socket):
            try:
                run = Run(self.post("/prompt", {"prompt": graph, "client_id": client})["prompt_id"])
            except urllib.error.HTTPError as error:
                raise Refusal(error.read().decode()) from None
            while True:
                message = socket.recv()
                if isinstance(message, bytes):
                    run.previews.append(message[8:])  # after the kinds of message and of picture
                    continue
                message = json.loads(message)
                data = message["data"]
                if data.get("prompt_id") != run.prompt_id:
                    continue
                run.messages.append((message["type"], data))
                if message["type"] == "progress" and interrupt_at is not None and data["value"] >= interrupt_at:
                    self.post("/interrupt", {})
                    interrupt_at = None
                if message["type"] in ("execution_success", "execution_error", "execution_interrupted"):
                    break
        end = time.monotonic() + 10
        while run.prompt_id not in (history := self.get(f"/history/{run.prompt_id}")) and time.monotonic() < end:
            time.sleep(0.05)
        run.outputs = history[run.prompt_id]["outputs"]
        return run
