"""Recording a live face to an mp4 while it is shown, tagged as synthetic, and signed if the environment says how."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ..errors import InputError
from ..media.audio import FPS
from ..media.provenance import TAGS, find_signer
from ..media.video_writer import write_video
from .engine import Moment

MOST_SECONDS = 1800
WAITING = 4 * FPS  # moments that wait for the encoder; then pictures are shown once more


class Recording:
    """Writes moments to `path` in a thread of its own; `put` never waits.

    sample_rate: one that AAC knows, such as 48000. tags: metadata besides the mark of synthetic videos.
    """

    def __init__(self, path: Path, sample_rate: int, tags: dict[str, str] | None = None):
        self.path, self.moments = path, 0
        self._signer = find_signer()
        self._rate, self._tags = sample_rate, TAGS | (tags or {})
        self._pictures: queue.SimpleQueue[Tensor | None] = queue.SimpleQueue()
        self._sounds: queue.SimpleQueue[Tensor | None] = queue.SimpleQueue()
        self._last: Tensor | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="imtalker recording", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        return self.moments / FPS

    def put(self, moment: Moment) -> bool:
        """Adds a moment; False once half an hour is full or the file cannot be written."""
        if self.seconds >= MOST_SECONDS or not self._thread.is_alive():
            return False
        if self._last is None or self._pictures.qsize() < WAITING:
            self._last = moment.frame
        self._pictures.put(self._last)
        self._sounds.put(moment.sound)
        self.moments += 1
        return True

    def finish(self) -> Path:
        """Ends the file and returns its path; takes until it is written. InputError: it could not be."""
        self._end()
        if self._error is not None:
            raise self._error
        if self._signer:
            self._signer.sign(self.path)
        return self.path

    def discard(self) -> None:
        """Ends without a file."""
        self._end()
        self.path.unlink(missing_ok=True)

    def _end(self) -> None:
        self._pictures.put(None)
        self._sounds.put(None)
        self._thread.join()

    def _write(self) -> None:
        try:
            sound = _Sound(self._rate, self._sounds)
            write_video(self.path, iter(self._pictures.get, None), FPS, sound, self._tags, preset="ultrafast")
        except Exception as error:
            self._error = error if isinstance(error, InputError) else InputError(f"The recording failed: {error}.")


class _Sound:
    """The sound of the moments as `write_video` reads it: in step with the pictures, block by block."""

    def __init__(self, sample_rate: int, sounds: queue.SimpleQueue):
        self.sample_rate, self._sounds = sample_rate, sounds

    def blocks(self) -> Iterator[Tensor]:
        return (samples[None] for samples in iter(self._sounds.get, None))
