"""A live face in a real browser: pictures a second, latency from microphone to lips, picture and sound in step, memory.

    python -m benchmarks.live --minutes 10 [--models avatar] [--device cuda] [--source FACE]
    python -m benchmarks.live --joins 50

Needs playwright, aiortc and Chromium, whose microphone and camera are a file. A vowel every four seconds is
found in the microphone, in the sound that comes back and, by the dark of an open mouth, in the picture, all on the
page's clock. --joins needs no browser: it counts how the motion steps where speech begins and ends.
"""

import argparse
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from imtalker import load_generator, load_renderer
from imtalker.drawn import example
from imtalker.media.audio import Audio, read_audio
from imtalker.weights.checkpoints import AVATAR, find_weights

from .measure import save_rows
from .theatre import Theatre

RATE = 48000
PERIOD, BURST = 4.0, 0.4  # seconds from vowel to vowel, and of a vowel
LONGEST = 3.5  # seconds from microphone to lips that are looked for
PROBE = Path(__file__).with_name("live_probe.js")


def vowels(path: Path) -> None:
    """Writes the microphone's sound: a vowel at the beginning of each period, silence between them."""
    spoken = example.speech(BURST)
    voice = torch.nn.functional.interpolate(spoken.waveform[None], round(BURST * RATE))[0, 0]
    voice = voice / voice.abs().max() * 0.7
    once = torch.cat([voice, torch.zeros(round(PERIOD * RATE) - len(voice))])
    example.write_sound(path, Audio(once.repeat(15)[None], RATE))


@contextlib.contextmanager
def served(arguments: list[str]) -> Iterator[tuple[str, int]]:
    """The address of a live page, and the process that serves it."""
    command = [sys.executable, "-m", "imtalker", "live", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        yield re.search(r"http://\S+", line)[0], process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def browser(sound: Path, camera: Path | None = None) -> Iterator[object]:
    """A Chromium whose microphone is a file, and whose camera is one or a test picture."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags += ["--autoplay-policy=no-user-gesture-required", f"--use-file-for-fake-audio-capture={sound}"]
    flags += [f"--use-file-for-fake-video-capture={camera}"] if camera else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=flags)
        yield running
        running.close()


def megabytes(process: int) -> float:
    """Memory of a process, where the system tells."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    return float("nan")


def after(starts: list[float], events: list[float]) -> list[float]:
    """For each start (ms), the seconds until the first event that follows it soon enough."""
    found = [min((event - start for event in events if event >= start), default=float("inf")) for start in starts]
    return [seconds / 1000 for seconds in found if seconds <= 1000 * LONGEST]


def in_browser(minutes: float, arguments: list[str]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        vowels(Path(folder) / "vowels.wav")
        with served(arguments) as (address, process), browser(Path(folder) / "vowels.wav") as chromium:
            page = chromium.new_page(
                viewport={"width": 1280, "height": 800}, bypass_csp=True
            )  # for the probe's worklet
            page.add_init_script(path=PROBE)
            page.goto(address)
            started = time.monotonic()
            page.click("#start")
            page.wait_for_function("document.getElementById('face').videoWidth > 0", timeout=60000)
            first = time.monotonic() - started
            page.wait_for_timeout(4000)
            page.evaluate("probe.begin()")
            page.wait_for_timeout(3000)  # the mouth at rest
            page.select_option("#microphone", "lips")
            memory = []
            for _ in range(max(1, round(minutes * 6))):
                page.wait_for_timeout(10000)
                memory.append(megabytes(process))
            found = page.evaluate("probe.end()")
    latency, sounds = after(found["microphone"], found["mouth"]), after(found["microphone"], found["sound"])
    return {
        "minutes": minutes, "first_picture_s": first, "pictures_per_second": found["pictures"] / found["seconds"],
        "slowest_second": found["slowest"], "vowels": len(found["microphone"]), "seen": len(latency),
        "latency_to_lips_s": statistics.median(latency) if latency else None,
        "latency_to_sound_s": statistics.median(sounds) if sounds else None,
        "skew_ms": statistics.median(map(abs, found["skew"])) if found["skew"] else None,
        "state": found["state"], "memory_mb": [memory[0], memory[-1]],
    }  # fmt: skip


def joins(times: int) -> dict:
    """Steps of the motion where speech begins and ends, over the mean step, for the avatar."""
    renderer, generator = (
        load(find_weights(AVATAR, kind)) for load, kind in ((load_renderer, "renderer"), (load_generator, "generator"))
    )
    source = renderer.encode_source(example.portrait(renderer.config.input_size))
    speech = read_audio(AVATAR / "speech.wav")
    theatre, found = Theatre(generator, source, cfg=1.0), []
    idle = [True]

    def watch(start: int, count: int):
        control = steering(start, count)
        if (control.pose is not None) != idle[-1]:
            found.append(theatre.stage.next)
            idle.append(control.pose is not None)
        return control

    steering = theatre.stage._steering
    theatre.stage._stream.steer(control=watch)
    for number in range(times):
        theatre.run(1.4)
        begin = round(number * 0.37 % 2.5 * speech.sample_rate)
        theatre.say(speech.waveform[0, begin : begin + speech.sample_rate], speech.sample_rate)
        theatre.run(1.4)
    steps = theatre.motion().diff(dim=0)
    at = torch.tensor([frame - 1 for frame in found if 0 < frame <= len(steps)])
    inside = torch.ones(len(steps), dtype=torch.bool)
    inside[at] = False
    values = steps.abs()
    whole = steps.norm(dim=1)
    return {
        "joins": len(at),
        "largest_step_over_mean": (whole[at].max() / whole[inside].mean()).item(),
        "mean_step_over_mean_of_each_value": (values[at].mean(dim=0) / values[inside].mean(dim=0)).tolist(),
    }


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="in the browser (%(default)g)")
    parser.add_argument("--joins", type=int, default=0, metavar="N", help="idle to speech and back so often instead")
    parser.add_argument("--models", default="avatar", metavar="DIR", help="weights (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--source", help="the portrait; the mouth is looked for in its lower middle")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file")
    options = parser.parse_args(arguments)
    serving = ["--models", options.models, "--device", options.device]
    serving += ["--source", options.source] if options.source else []
    row = joins(options.joins) if options.joins else in_browser(options.minutes, serving)
    print(json.dumps(row, indent=1))
    save_rows(options, [row])
    return {"rows": [row]}


if __name__ == "__main__":
    main()
