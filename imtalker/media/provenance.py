"""That a video is synthetic: tags in every file, a visible mark where wanted, a C2PA signature where there is a key.

C2PA wants the library c2pa-python and a certificate of yours. With CERTIFICATE and KEY in the environment every video
that `Clip.save` and the command line write is signed; `sign` does the same to a file that is there already.
"""

import io
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from .atomic import whole_file
from .files import VIDEO_SUFFIXES, check_output

if TYPE_CHECKING:
    import c2pa
    from PIL import Image

log = logging.getLogger("imtalker")

TAGS = {"comment": "Synthetic video made with IMTalker"}
CERTIFICATE, KEY = "IMTALKER_C2PA_CERTIFICATE", "IMTALKER_C2PA_KEY"
# IPTC's word for what a model has made, as C2PA wants it
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
ELLIPTIC = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

LETTERS = 28  # the mark's height goes this many times into the picture's
MOST = 80  # characters


def mark(blocks: Iterable[Tensor], text: str) -> Iterator[Tensor]:
    """Frames (n,H,W,3) or (H,W,3), RGB in 0..1, with a small `text` in their lower right corner; "" changes nothing.

    InputError, before the first frame: more than 80 characters, or letters beyond the ASCII that Pillow's font has.
    """
    text = " ".join(text.split())
    return _marked(blocks, check_mark(text)) if text else iter(blocks)


def check_mark(text: str) -> str:
    """The text, if it can be written. InputError as for `mark`."""
    if len(text) > MOST:
        raise InputError(f"The mark has {len(text)} characters: give {MOST} or fewer.")
    font = _font(32)
    # what the font lacks is drawn as the same box as a character that nobody has
    box = bytes(font.getmask("\U0010fffd"))
    missing = [letter for letter in text if not letter.isspace() and bytes(font.getmask(letter)) == box]
    if missing:
        raise InputError(f"The mark has {missing[0]!r} in it, which cannot be drawn here: use plain letters, a to z.")
    return text


def _marked(blocks: Iterable[Tensor], text: str) -> Iterator[Tensor]:
    corner = None
    for block in blocks:
        if corner is None:
            height, width = block.shape[-3:-1]
            alpha, light = (part.to(block.device) for part in _corner(text, height, width))
            # the first element that is covered, counted from the top and from the left
            corner = height - alpha.shape[0], width - alpha.shape[1]
        block = block.clone()
        part = block[..., corner[0] :, corner[1] :, :]
        part.copy_(part * (1 - alpha) + light * alpha)
        yield block


def _corner(text: str, height: int, width: int) -> tuple[Tensor, Tensor]:
    """How much of the lower right corner is covered, and with what: white letters on a dark veil, (h,w,1) each."""
    from PIL import Image, ImageDraw

    drawn_at = 64
    font = _font(drawn_at)
    left, top, right, bottom = font.getbbox(text)
    size = round(right - left) + drawn_at, round(bottom - top) + drawn_at // 2
    letters, veil = Image.new("L", size), Image.new("L", size, 128)
    ImageDraw.Draw(letters).text((drawn_at // 2 - left, drawn_at // 4 - top), text, fill=255, font=font)
    scale = min(height / LETTERS / drawn_at, width / size[0], height / size[1])
    shown = max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
    light, veil = (_rows(picture.resize(shown, Image.Resampling.LANCZOS)) for picture in (letters, veil))
    alpha = torch.maximum(light, veil)
    return alpha, light / alpha


def _rows(picture: "Image.Image") -> Tensor:
    import numpy as np

    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[..., None]


def _font(size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size)


@dataclass(frozen=True)
class Signer:
    """A certificate chain (PEM, its own first) and its private key (PEM, PKCS 8), read and fit to sign with."""

    certificate: str
    key: str
    algorithm: str  # as C2PA names it: ES256, PS256, ED25519

    def sign(self, path: str | os.PathLike, output: str | os.PathLike | None = None) -> Path:
        """Signs the .mp4 or .mov `path`, in place or as `output`, whole or not at all; returns where it is.

        The manifest says that a model made it, and with what version of this package. No time stamp authority is
        asked: nothing touches the network. InputError: no such file, not a whole video, disk full.
        """
        import c2pa

        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path} does not exist.")
        output = check_output(path if output is None else output, *VIDEO_SUFFIXES)
        try:
            signing = self._signer(c2pa), c2pa.Builder(_manifest(output.name))
            with whole_file(output) as partial, signing[0] as signer, signing[1] as builder:
                builder.sign_file(path, partial, signer)
        except c2pa.C2paError as error:
            raise InputError(f"{path} cannot be signed ({error}): is it a whole video?") from error
        return output

    def try_out(self) -> None:
        """Signs a picture of one pixel in memory, which fails as a video would: C2paError."""
        import c2pa
        from PIL import Image

        picture = io.BytesIO()
        Image.new("RGB", (1, 1)).save(picture, "JPEG")
        picture.seek(0)
        with self._signer(c2pa) as signer, c2pa.Builder(_manifest("trial")) as builder:
            builder.sign(signer, "image/jpeg", picture, io.BytesIO())

    def _signer(self, library) -> "c2pa.Signer":
        algorithm = library.C2paSigningAlg[self.algorithm]
        info = library.C2paSignerInfo(algorithm, self.certificate.encode(), self.key.encode(), None)
        return library.Signer.from_info(info)


def find_signer(certificate: str | os.PathLike | None = None, key: str | os.PathLike | None = None) -> Signer | None:
    """The signer of two PEM files, by default those named in the environment; None where neither is named.

    InputError: one without the other, a file that cannot be read or is no such thing, a certificate that C2PA does not
    take, another's key, no c2pa-python.
    """
    certificate, key = certificate or os.environ.get(CERTIFICATE), key or os.environ.get(KEY)
    if not (certificate or key):
        return None
    if not (certificate and key):
        raise InputError(f"Signing takes a certificate and its key: name both, in {CERTIFICATE} and {KEY} for example.")
    try:
        import c2pa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise InputError("Signing takes the C2PA library: run `pip install c2pa-python`.") from error
    texts = [_read(path) for path in (certificate, key)]
    try:
        algorithm = _algorithm(load_pem_private_key(texts[1].encode(), None))
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} is no private key in PEM without a password: convert it first.") from error
    signer = Signer(*texts, algorithm)
    try:
        signer.try_out()
    except c2pa.C2paError as error:
        raise InputError(
            f"{certificate} and {key} cannot sign ({error}): C2PA wants a certificate that is valid "
            "now, made for signing, with the chain above it, and the key that belongs to it."
        ) from error
    return signer


def _read(path: str | os.PathLike) -> str:
    try:
        return Path(path).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a PEM file: check its name and its kind.") from error


def _algorithm(key: object) -> str:
    """The name of the one signature that goes with the kind of key."""
    curve = getattr(key, "curve", None)
    if curve is not None and curve.name in ELLIPTIC:
        return ELLIPTIC[curve.name]
    kinds = {"rsa": "PS256", "ed25519": "ED25519"}
    for name, algorithm in kinds.items():
        if name in type(key).__name__.lower():
            return algorithm
    raise ValueError(f"C2PA signs with no key of the kind {type(key).__name__}")


def _manifest(title: str) -> str:
    from ..version import __version__

    action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}
    return json.dumps(
        {
            "claim_generator_info": [{"name": "IMTalker", "version": __version__}],
            "title": title,
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
    )
