"""Marks videos as synthetic: tags in every file, optional visible text, and a C2PA signature if there is a key.

C2PA needs the library c2pa-python and your own certificate. With CERTIFICATE and KEY set in the environment,
`Clip.save` and the command line sign every video they write; the command `sign` signs an existing file.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from . import lettering
from .atomic import whole_file
from .files import VIDEO_SUFFIXES, check_output, regular_file

if TYPE_CHECKING:
    import c2pa
    from PIL import Image

TAGS = {"comment": "Synthetic video made with IMTalker"}
CERTIFICATE, KEY = "IMTALKER_C2PA_CERTIFICATE", "IMTALKER_C2PA_KEY"
# IPTC's term for media made by a model, as C2PA requires
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
ELLIPTIC = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

MARK_RATIO = 28  # frame height / mark height


def mark(blocks: Iterable[Tensor], text: str, place: str = "corner") -> Iterator[Tensor]:
    """Writes `text` onto frames (n,H,W,3) or (H,W,3), RGB in 0..1; an empty text changes nothing.

    place: "corner", small at the lower right; "top", across the whole width.
    InputError, before the first frame: a text that `lettering.runs` refuses.
    """
    line = lettering.runs(text)
    return _marked(blocks, line, place) if line else iter(blocks)


def _marked(blocks: Iterable[Tensor], line: list[lettering.Run], place: str) -> Iterator[Tensor]:
    alpha = light = None
    for block in blocks:
        height, width = block.shape[-3:-1]
        if alpha is None:
            letters = lettering.draw(line)
            overlay = _strip(letters, height, width) if place == "top" else _corner(letters, height, width)
            alpha, light = (part.to(block.device) for part in overlay)
        block = block.clone()
        rows, columns = alpha.shape[:2]
        area = block[..., :rows, :, :] if place == "top" else block[..., height - rows :, width - columns :, :]
        area.copy_(area * (1 - alpha) + light * alpha)
        yield block


def _corner(letters: "Image.Image", height: int, width: int) -> tuple[Tensor, Tensor]:
    """Opacity and brightness (h,w,1) of white letters on a translucent dark ground, for a frame's corner."""
    from PIL import Image

    ground = Image.new("L", letters.size, 128)
    scale = min(height / MARK_RATIO / lettering.SIZE, width / letters.width, height / letters.height)
    size = max(1, int(letters.width * scale)), max(1, int(letters.height * scale))
    light, dark = (_to_tensor(image, size) for image in (letters, ground))
    alpha = torch.maximum(light, dark)
    return alpha, light / alpha


def _strip(letters: "Image.Image", height: int, width: int) -> tuple[Tensor, Tensor]:
    """Opacity and brightness (h,width,1) of white letters on black, across a whole frame."""
    light = _to_tensor(letters, (width, max(1, round(letters.height * width / letters.width))))[:height]
    return torch.ones_like(light), light


def _to_tensor(image: "Image.Image", size: tuple[int, int]) -> Tensor:
    """Scales a greyscale image to `size` (w,h) -> (h,w,1) in 0..1."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS), dtype=np.float32)
    return torch.from_numpy(pixels / 255)[..., None]


@dataclass(frozen=True)
class Signer:
    """A certificate chain (PEM, leaf first) and its private key (PEM, PKCS 8), checked and ready to sign."""

    certificate: str
    key: str
    algorithm: str  # as C2PA names it: ES256, PS256, ED25519

    def sign(self, path: str | os.PathLike, output: str | os.PathLike | None = None) -> Path:
        """Signs the .mp4 or .mov `path`, in place or into `output`, whole or not at all; returns the signed file.

        The manifest states that a model made the video, and this package's version. Works offline, without a time
        stamp authority. InputError: no such file, not a complete video, disk full.
        """
        import c2pa

        path = regular_file(path)
        output = check_output(path if output is None else output, *VIDEO_SUFFIXES)
        try:
            signing = self._signer(c2pa), c2pa.Builder(_manifest(output.name))
            with whole_file(output) as temporary, signing[0] as signer, signing[1] as builder:
                builder.sign_file(path, temporary, signer)
        except c2pa.C2paError as error:
            raise InputError(f"{path} cannot be signed ({error}): check that it is a complete video.") from error
        return output

    def try_out(self) -> None:
        """Signs a one-pixel image in memory, to fail early: C2paError."""
        import c2pa
        from PIL import Image

        image = io.BytesIO()
        Image.new("RGB", (1, 1)).save(image, "JPEG")
        image.seek(0)
        with self._signer(c2pa) as signer, c2pa.Builder(_manifest("trial")) as builder:
            builder.sign(signer, "image/jpeg", image, io.BytesIO())

    def _signer(self, library) -> "c2pa.Signer":
        algorithm = library.C2paSigningAlg[self.algorithm]
        info = library.C2paSignerInfo(algorithm, self.certificate.encode(), self.key.encode(), None)
        return library.Signer.from_info(info)


def find_signer(certificate: str | os.PathLike | None = None, key: str | os.PathLike | None = None) -> Signer | None:
    """Makes a signer from two PEM files, by default those named in the environment; None if neither is named.

    InputError: one file without the other, an unreadable or wrong file, a certificate that C2PA does not accept, a key
    that does not match, c2pa-python not installed.
    """
    certificate, key = certificate or os.environ.get(CERTIFICATE), key or os.environ.get(KEY)
    if not (certificate or key):
        return None
    if not (certificate and key):
        raise InputError(f"Signing needs a certificate and its key: name both, for example in {CERTIFICATE} and {KEY}.")
    try:
        import c2pa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise InputError("Signing needs the C2PA library: run `pip install c2pa-python`.") from error
    texts = [_read(path) for path in (certificate, key)]
    try:
        algorithm = _algorithm(load_pem_private_key(texts[1].encode(), None))
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} is not a PEM private key without a password: convert it first.") from error
    signer = Signer(*texts, algorithm)
    try:
        signer.try_out()
    except c2pa.C2paError as error:
        raise InputError(
            f"{certificate} and {key} cannot sign ({error}): use a signing certificate that is currently valid, with "
            "its whole chain, and the key that belongs to it."
        ) from error
    return signer


def _read(path: str | os.PathLike) -> str:
    try:
        return regular_file(path).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a PEM file: check the name and the format.") from error


def _algorithm(key: object) -> str:
    """C2PA's name for the signature algorithm of a key."""
    curve = getattr(key, "curve", None)
    if curve is not None and curve.name in ELLIPTIC:
        return ELLIPTIC[curve.name]
    kinds = {"rsa": "PS256", "ed25519": "ED25519"}
    for name, algorithm in kinds.items():
        if name in type(key).__name__.lower():
            return algorithm
    raise ValueError(f"C2PA cannot sign with a {type(key).__name__}")


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
