"""The live page's server: one address, one guest at a time, and nobody from elsewhere.

It listens on this machine alone, or, with a token, on another address. A request must name a host that is served
(against DNS rebinding), come from this page if a browser says where from (against other sites), and bring the token if
there is one. Uploads are bounded and read by the readers for untrusted files.
"""

import asyncio
import contextlib
import hmac
import io
import ipaddress
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from ..drawn import example
from ..errors import InputError
from .guest import Face, Guest, without_paths

log = logging.getLogger("imtalker")

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/sliders.js": "sliders.js"}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
LOCAL = ("127.0.0.1", "localhost", "::1")
SHORTEST_TOKEN = 12
OFFER, PICTURE, SOUND = 1 << 17, 40 << 20, 100 << 20  # bytes that may be uploaded
PEOPLE = (example.SOMEBODY, 1, 2, 3, 4, 5, 6, 7)  # drawn ones to choose from, by seed
THUMBNAIL = 96
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Door:
    """Who may come in."""

    def __init__(self, host: str, token: str | None):
        """InputError: another host than this machine without a token, or a token that can be guessed."""
        self.local = is_local(host)
        if not self.local and not token:
            raise InputError(f"On {host} others could reach the face: give a --token that they need to know.")
        if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
            raise InputError(f"The token must have at least {SHORTEST_TOKEN} plain characters: choose a longer one.")
        self._token = token

    def refusal(self, request: web.Request) -> str | None:
        """Why a request is refused; None if it may come in."""
        host, _ = split_host(request.host)
        if self.local and host not in LOCAL:
            return "This face answers on this machine only: open the address that the command printed."
        origin = request.headers.get("Origin")
        if origin is not None and origin.split("://")[-1] != request.host:
            return "Another site may not use this face: open the address that the command printed."
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._token and request.path not in FILES and not hmac.compare_digest(given.encode(), self._token.encode()):
            return "This face needs its token: open the whole address that the command printed."
        return None


def is_local(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def split_host(text: str) -> tuple[str, str]:
    """The host and the port in a Host header."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = text.partition(":")
    return host, port


class Reception:
    """Lets one guest in at a time and serves what the page asks for."""

    def __init__(self, face: Face, door: Door, make_guest: Callable[[Face], Guest] = Guest):
        self._face, self._door, self._make_guest = face, door, make_guest
        self._guest: Guest | None = None
        self._watch: asyncio.Task | None = None
        self._changing = asyncio.Lock()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._check], client_max_size=OFFER)
        for path in FILES:
            app.router.add_get(path, self._page)
        app.router.add_get("/people/{seed}", self._person)
        app.router.add_post("/offer", self._offer)
        app.router.add_post("/leave", self._leave)
        app.router.add_post("/portrait", self._portrait)
        app.router.add_post("/sound", self._sound)
        app.router.add_get("/recording", self._recording)
        app.on_shutdown.append(self._close)
        return app

    @web.middleware
    async def _check(self, request: web.Request, handler: Callable) -> web.StreamResponse:
        refusal = self._door.refusal(request)
        if refusal is not None:
            response = _error(403, refusal)
        else:
            try:
                response = await handler(request)
            except InputError as error:
                response = _error(400, str(error))
            except web.HTTPRequestEntityTooLarge:
                response = _error(413, "This is too large: choose a smaller file.")
        response.headers.update(HEADERS)
        return response

    async def _page(self, request: web.Request) -> web.Response:
        path = PAGE / FILES[request.path]
        return web.Response(body=path.read_bytes(), content_type=TYPES[path.suffix], charset="utf-8")

    async def _person(self, request: web.Request) -> web.Response:
        seed = request.match_info["seed"].removesuffix(".png")
        if seed not in map(str, PEOPLE):
            raise InputError("There is no such person: reload the page.")
        return web.Response(body=await asyncio.to_thread(_thumbnail, int(seed)), content_type="image/png")

    async def _offer(self, request: web.Request) -> web.Response:
        offer = await _json(request)
        async with self._changing:
            if self._guest is not None:
                return _error(409, "Somebody else is talking to this face: it is free once their page is closed.")
            guest = self._make_guest(self._face)
            self._guest = guest
            try:
                answer = await guest.welcome(str(offer.get("sdp", "")))
            except BaseException:
                self._guest = None
                raise
            self._watch = asyncio.create_task(self._see_off(guest))
        return web.json_response({"sdp": answer, "key": guest.key, "people": PEOPLE, **self._face.offers()})

    async def _see_off(self, guest: Guest) -> None:
        await guest.ended()
        await guest.leave()
        if self._guest is guest:
            self._guest = None

    async def _leave(self, request: web.Request) -> web.Response:
        guest = self._known(request)
        await guest.leave()
        if self._guest is guest:
            self._guest = None
        return web.json_response({})

    async def _portrait(self, request: web.Request) -> web.Response:
        guest = self._known(request)
        async with self._upload(request, guest, PICTURE, "picture.png") as path:
            with without_paths(path, "The picture"):
                await guest.show_picture(path)
        return web.json_response({})

    async def _sound(self, request: web.Request) -> web.Response:
        guest = self._known(request)
        async with self._upload(request, guest, SOUND, "sound.bin") as path:
            with without_paths(path, "The sound file"):
                seconds = await guest.say_file(path)
        return web.json_response({"seconds": seconds})

    async def _recording(self, request: web.Request) -> web.StreamResponse:
        path = await self._known(request).recorded()
        if path is None:
            raise InputError("There is no recording yet: record one first.")
        return web.FileResponse(path, headers={"Content-Disposition": 'attachment; filename="imtalker.mp4"'})

    def _known(self, request: web.Request) -> Guest:
        key = request.headers.get("X-Session", "")
        if self._guest is None or not hmac.compare_digest(key.encode(), self._guest.key.encode()):
            raise InputError("This session has ended: press Start again.")
        return self._guest

    @contextlib.asynccontextmanager
    async def _upload(self, request: web.Request, guest: Guest, most: int, name: str):
        """An uploaded body as a file, gone afterwards. InputError: empty, or too large."""
        path, size = guest.place(name), 0
        try:
            with open(path, "wb") as file:
                async for chunk in request.content.iter_chunked(1 << 16):
                    size += len(chunk)
                    if size > most:
                        raise InputError(f"The file is larger than {most >> 20} MB: choose a smaller one.")
                    file.write(chunk)
            yield path
        finally:
            path.unlink(missing_ok=True)

    async def _close(self, app: web.Application) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._guest is not None:
            await self._guest.leave()
            self._guest = None


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


async def _json(request: web.Request) -> dict:
    try:
        found = await request.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError("This request cannot be understood: reload the page.")
    return found


def _thumbnail(seed: int) -> bytes:
    from PIL import Image

    pixels = example.portrait(THUMBNAIL, seed)[0].mul(255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


async def serve(face: Face, host: str, port: int, token: str | None, say: Callable[[str], None]) -> None:
    """Serves the page until the process is asked to stop. say: gets the address once it answers.

    InputError: no token where one is needed, or the address cannot be used.
    """
    runner = web.AppRunner(Reception(face, Door(host, token)).app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
        except OSError as error:
            raise InputError(
                f"{host}:{port} cannot be used ({error.strerror}): give another --port or --host."
            ) from error
        port = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{port}/" + (f"#{token}" if token else ""))
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows raises KeyboardInterrupt
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
    finally:
        await runner.cleanup()
