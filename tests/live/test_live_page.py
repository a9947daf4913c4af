"""The live page in a real Chromium: it starts, speaks, records, gives way to a second page, and leaves nothing."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imtalker.media.video import VideoReader

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")
pytest.importorskip("aiortc", reason="aiortc is not installed: pip install aiortc")

FLAGS = ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
PICTURE = "document.getElementById('face').videoWidth > 0"
STATE = "(words) => words.some((word) => document.getElementById('state').textContent.includes(word))"
WAIT = {"timeout": 60000}  # this machine may be busy


@contextlib.contextmanager
def served(models: Path, temporary: Path):
    """The address of a live page with tiny models; afterwards it must have ended well."""
    command = [sys.executable, "-m", "imtalker", "live", "--models", str(models), "--port", "0", "--nfe", "2"]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": paths}
    with open(temporary.parent / "errors.txt", "w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            yield re.search(r"http://\S+/", process.stdout.readline())[0]
        finally:
            process.terminate()
            process.wait(30)
        errors.seek(0)
        assert "Traceback" not in errors.read()
    assert process.returncode == 0


def test_a_face_answers_in_the_page(models, inputs, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt-get install --no-install-recommends chromium")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with served(models, temporary) as address, api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        # playwright waits by evaluating texts, which the page's policy forbids
        page = chromium.new_page(viewport={"width": 1280, "height": 800}, bypass_csp=True)
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.goto(address)
        page.click("#start")
        page.wait_for_function(PICTURE, **WAIT)
        page.wait_for_function(STATE, arg=["idle"], **WAIT)
        assert not page.is_visible("#start")
        assert page.locator(".people button").count() == 9
        page.set_input_files("#sound", inputs / "speech.wav")
        page.wait_for_function(STATE, arg=["speaking"], **WAIT)
        page.select_option("#microphone", "lips")
        page.fill("input[name=yaw]", "12")
        page.select_option("#camera", "on")
        page.wait_for_function(STATE, arg=["follows the camera"], **WAIT)
        page.select_option("#camera", "off")
        page.click("#record")
        page.wait_for_selector("#badge:not([hidden])", **WAIT)
        with page.expect_download(**WAIT) as download:
            page.click("#record")
        download.value.save_as(tmp_path / "out.mp4")
        with VideoReader(tmp_path / "out.mp4") as reader:
            assert (reader.width, reader.height, reader.has_audio) == (64, 64, True)
        assert page.inner_text("#notice") == ""
        # a second page waits, and comes in once the first is closed
        second = chromium.new_page(viewport={"width": 400, "height": 800}, bypass_csp=True)
        second.goto(address)
        assert second.evaluate("document.documentElement.scrollWidth <= innerWidth")
        second.click("#start")
        second.wait_for_selector("#notice:not([hidden])", **WAIT)
        assert "Somebody else" in second.inner_text("#notice")
        page.close()
        second.wait_for_function(PICTURE, **WAIT)
        second.reload()
        second.click("#start")
        second.wait_for_function(PICTURE, **WAIT)
        chromium.close()
        assert [problem for problem in problems if "409" not in problem] == []
    assert not list(temporary.glob("imtalker*"))
