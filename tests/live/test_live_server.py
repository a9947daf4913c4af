"""The live page's server: who comes in, one guest at a time, bounded uploads, no paths, nothing left behind."""

import asyncio
import contextlib
import io
import itertools
import json
import os
import sys
import tempfile
import threading
from fractions import Fraction
from pathlib import Path

import av
import own_loop
import pytest
import torch
from tiny import tiny_generator, tiny_renderer

from imtalker import InputError
from imtalker.cli.commands import main

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")
pytest.importorskip("aiortc", reason="aiortc is not installed: pip install aiortc")

from aiohttp.test_utils import TestClient, TestServer
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from imtalker.live import guest as guest_module
from imtalker.live import server as server_module
from imtalker.live.guest import Face, Guest, without_paths
from imtalker.live.peer import RATE, OutTrack
from imtalker.live.server import Door, Reception

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def face():
    renderer = tiny_renderer()
    source = renderer.encode_source(torch.rand(1, 64, 64, 3))
    return Face(renderer, tiny_generator(), source, nfe=2)


class Visitor:
    """Stands for Guest where a test is about who comes in: what it was asked, and until when it stays."""

    def __init__(self, face):
        self.key, self.left, self.pictures, self.sounds = "key", asyncio.Event(), [], []
        self.folder = tempfile.TemporaryDirectory()

    async def welcome(self, sdp):
        if not sdp:
            raise InputError("no offer")
        return "answer"

    async def leave(self):
        self.left.set()

    async def ended(self):
        await self.left.wait()

    def place(self, name):
        return Path(self.folder.name) / name

    async def show_picture(self, path):
        self.pictures.append(path.read_bytes())
        raise InputError(f"{path} is no picture: choose another.")

    async def say_file(self, path):
        self.sounds.append(path.read_bytes())
        return 1.0

    async def recorded(self):
        return None


def visit(face, work, host="127.0.0.1", token=None, make_guest=Visitor):
    """Runs `work(client, reception)` against a server."""

    async def run():
        reception = Reception(face, Door(host, token), make_guest)
        async with TestClient(TestServer(reception.app())) as client:
            return await work(client, reception)

    return own_loop.run(run())


async def said(response) -> str:
    return (await response.json())["error"]


def test_the_page_and_all_that_it_loads_are_there(face):
    async def work(client, reception):
        for path, name in server_module.FILES.items():
            response = await client.get(path)
            assert response.status == 200
            assert await response.read() == (server_module.PAGE / name).read_bytes()
            assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert {path.name for path in server_module.PAGE.iterdir()} == set(server_module.FILES.values())
        picture = await client.get("/people/103.png")
        assert (await picture.read()).startswith(b"\x89PNG")
        for wrong in ("/people/99.png", "/people/..%2F..%2Fsetup.png", "/people/x"):
            assert (await client.get(wrong)).status == 400
        for outside in ("/../server.py", "/page/index.html", "/%2e%2e/server.py", "/guest.py"):
            assert (await client.get(outside)).status in (403, 404)

    visit(face, work)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "localhost:1234"}, True),
        ({"Host": "[::1]:1234"}, True),
        ({"Host": "evil.example"}, False),
        ({"Host": "127.0.0.1.evil.example:80"}, False),
        ({"Host": "192.168.0.7"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, True),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, False),
        ({"Host": "localhost:1", "Origin": "http://localhost:1.evil.example"}, False),
    ],
)
def test_on_this_machine_only_its_own_page_comes_in(face, headers, allowed):
    async def work(client, reception):
        response = await client.post("/offer", json={"sdp": "x"}, headers=headers)
        assert response.status == (200 if allowed else 403)
        page = await client.get("/", headers=headers)
        assert page.status == (200 if allowed else 403)
        if not allowed:
            assert "open the address" in await said(response)

    visit(face, work)


def test_another_address_needs_a_token_on_every_request_but_the_page(face):
    for token in (None, "", "short", "x" * 11, "schlüssel-schlüssel"):
        with pytest.raises(InputError, match="token"):
            Door("0.0.0.0", token)

    async def work(client, reception):
        assert (await client.get("/page.js")).status == 200
        for given in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}x"}):
            for method, path in (
                ("POST", "/offer"),
                ("POST", "/sound"),
                ("GET", "/people/1.png"),
                ("GET", "/recording"),
            ):
                assert (await client.request(method, path, headers=given)).status == 403
        good = {"Authorization": f"Bearer {TOKEN}"}
        assert (await client.post("/offer", json={"sdp": "x"}, headers=good)).status == 200
        foreign = good | {"Origin": "http://evil.example"}
        assert (await client.post("/offer", json={"sdp": "x"}, headers=foreign)).status == 403

    for host in ("0.0.0.0", "192.168.0.7", "::", "127.0.0.1"):
        visit(face, work, host, TOKEN)


def test_a_second_page_waits_until_the_first_is_gone(face):
    async def work(client, reception):
        assert (await client.post("/offer", json={})).status == 400  # and it holds nothing
        for text in (b"", b"[]", b"{", b"\xff"):
            assert (await client.post("/offer", data=text)).status == 400
        first = await (await client.post("/offer", json={"sdp": "x"})).json()
        second = await client.post("/offer", json={"sdp": "x"})
        assert second.status == 409
        assert "Somebody else" in await said(second)
        assert (await client.post("/leave", headers={"X-Session": "another"})).status == 400
        assert (await client.post("/leave", headers={"X-Session": first["key"]})).status == 200
        assert (await client.post("/offer", json={"sdp": "x"})).status == 200
        reception._guest.left.set()  # its connection is lost
        await asyncio.sleep(0.01)
        assert (await client.post("/offer", json={"sdp": "x"})).status == 200

    visit(face, work)


def test_uploads_need_the_session_and_are_bounded_and_their_errors_name_no_path(face, monkeypatch):
    monkeypatch.setattr(server_module, "PICTURE", 2 << 20)

    async def work(client, reception):
        assert (await client.post("/portrait", data=b"x")).status == 400
        await client.post("/offer", json={"sdp": "x"})
        key, guest = {"X-Session": "key"}, reception._guest
        assert "has ended" in await said(await client.post("/sound", data=b"x", headers={"X-Session": "kez"}))
        assert (await client.post("/sound", data=b"sound", headers=key)).status == 200
        assert guest.sounds == [b"sound"]
        wrong = await said(await client.post("/portrait", data=b"no picture", headers=key))
        assert wrong == "The picture is no picture: choose another."
        large = await client.post("/portrait", data=io.BytesIO(bytes((2 << 20) + 1)), headers=key)
        assert "larger than 2 MB" in await said(large)
        assert len(guest.pictures) == 1
        assert not os.listdir(guest.folder.name)
        large = await client.post("/offer", data=b" " * (server_module.OFFER + 1))
        assert large.status == 413
        assert "no recording" in await said(await client.get("/recording", headers=key))

    visit(face, work)


class PythonPage:
    """What page.js does with WebRTC: a voice and a camera go out, pictures, sounds and messages come in."""

    def __init__(self):
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.peer.createDataChannel("imtalker")
        self.microphone, self.camera = OutTrack("audio"), OutTrack("video")
        self.peer.addTrack(self.microphone)
        self.peer.addTrack(self.camera)
        self.pictures, self.sounds, self.told, self.tasks = [], [], [], []
        self.channel.on("message", lambda text: self.told.append(json.loads(text)))
        self.peer.on("track", lambda track: self.tasks.append(asyncio.ensure_future(self.receive(track))))

    async def offer(self) -> str:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return self.peer.localDescription.sdp

    async def enter(self, answer: str) -> None:
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        self.tasks.append(asyncio.ensure_future(self.send()))

    async def send(self) -> None:
        voice = (6000 * torch.sin(torch.arange(960) * 0.05)).short()[None].numpy()
        for number in itertools.count():
            sound = av.AudioFrame.from_ndarray(voice, format="s16", layout="mono")
            sound.sample_rate, sound.time_base, sound.pts = RATE, Fraction(1, RATE), 960 * number
            picture = av.VideoFrame(64, 64, "yuv420p")
            picture.time_base, picture.pts = Fraction(1, 90000), 1800 * number
            self.microphone.send(sound)
            self.camera.send(picture)
            await asyncio.sleep(0.02)

    async def receive(self, track) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                (self.pictures if track.kind == "video" else self.sounds).append(await track.recv())

    async def leave(self) -> None:
        for task in self.tasks:
            task.cancel()
        await self.peer.close()


async def until(condition, seconds: float = 60) -> None:
    for _ in range(round(seconds * 20)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen")


def test_a_whole_visit_with_a_peer_leaves_nothing_behind(face, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(guest_module, "QUIET", 600)  # this machine may be busy
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def work(client, reception):
        assert (await client.post("/offer", json={"sdp": "v=0"})).status == 400
        assert reception._guest is None
        page = PythonPage()
        found = await (await client.post("/offer", json={"sdp": await page.offer()})).json()
        guest, key = reception._guest, {"X-Session": found["key"]}
        await page.enter(found["sdp"])
        # picture and sound come, and what the page sends arrives
        await until(lambda: len(page.pictures) > 4 and len(page.sounds) > 4 and page.told)
        assert {(picture.height, picture.width) for picture in page.pictures} == {(64, 64)}
        assert {sound.sample_rate for sound in page.sounds} == {RATE}
        assert page.told[0]["type"] == "state"
        page.channel.send(json.dumps({"type": "microphone", "mode": "lips"}))
        page.channel.send(json.dumps({"type": "camera", "on": True}))
        page.channel.send("nonsense")
        await until(lambda: guest._live._mixer.microphone.gate.is_open and guest._live._stage._picture is not None)
        await until(lambda: any("cannot be understood" in message.get("text", "") for message in page.told))
        assert len(list(tmp_path.glob("imtalker*"))) == 1
        portrait = (inputs / "portrait.png").read_bytes()
        assert "picture" in await said(await client.post("/portrait", data=bytes(9), headers=key))
        assert (await client.post("/sound", data=(inputs / "speech.wav").read_bytes(), headers=key)).status == 200
        for data, path in ((b"no sound", "/sound"), (portrait[:200], "/portrait")):
            text = await said(await client.post(path, data=data, headers=key))
            assert str(tmp_path) not in text
        for message in (
            {"type": "steer", "strength": 0.5, "aim": {"yaw": 5}, "cfg": 1.5, "seed": 3},
            {"type": "person", "seed": 4},
            {"type": "microphone", "mode": "interrupts"},
            {"type": "camera", "on": False},
            {"type": "interrupt"},
            {"type": "record", "on": True},
            {"type": "alive"},
        ):
            await guest._obey(message)
        for message in ({"type": "shout"}, {"type": "steer", "aim": {"nose": 1}}, {"type": "text", "text": "a"}):
            with pytest.raises(InputError):
                await guest._obey(message)
        for message in ({}, {"type": "microphone", "mode": "x"}, {"type": "steer", "cfg": "x"}, {"type": "person"}):
            with pytest.raises((KeyError, TypeError, ValueError)):
                await guest._obey(message)
        assert (await client.post("/leave", headers=key)).status == 200
        await page.leave()
        assert reception._guest is None

    visit(face, work, make_guest=Guest)
    assert not list(tmp_path.glob("imtalker*"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("imtalker")]


def test_an_error_about_an_upload_names_it_as_the_page_does(tmp_path):
    with pytest.raises(InputError, match=r"^The picture cannot be read"), without_paths(tmp_path, "The picture"):
        raise InputError(f"{tmp_path} cannot be read: choose another.")


def test_the_command_says_what_is_missing_and_refuses_before_loading(monkeypatch, capsys):
    command = ["live", "--models", "avatar"]
    assert main([*command, "--host", "0.0.0.0"]) == 1
    assert "give a --token" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "aiortc", None)
    for name in ("peer", "guest", "server"):
        monkeypatch.delitem(sys.modules, f"imtalker.live.{name}")
    assert main(command) == 1
    assert capsys.readouterr().err == "imtalker: Live needs the package aiortc: run `pip install aiortc aiohttp`.\n"
