"""Small ICC profiles for tests of colour, made from their numbers (ICC.1:2001-04, version 2)."""

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
# primaries adapted to D50, as published with each space
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def xyz(values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def text(words):
    content = words.encode() + b"\0"
    return b"desc" + bytes(4) + struct.pack(">I", len(content)) + content + bytes(12 + 67)


def profile(space, pcs, kind, tags):
    """A whole profile of four-letter tags."""
    tags = {"desc": text("test"), "wtpt": xyz(D50), "cprt": b"text" + bytes(4) + b"none\0", **tags}
    head, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        head += name.encode() + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"test", 0x02100000, kind, space, pcs)
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(value * 65536) for value in D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + head + body


def rgb_profile(primaries, exponent):
    colours = {f"{letter}XYZ": xyz(values) for letter, values in zip("rgb", primaries)}
    return profile(b"RGB ", b"XYZ ", b"mntr", colours | {f"{letter}TRC": gamma(exponent) for letter in "rgb"})


def grey_profile(exponent):
    return profile(b"GRAY", b"XYZ ", b"mntr", {"kTRC": gamma(exponent)})


def cmyk_profile():
    """Inks of two levels each: the colour of every corner of the cube is given in Lab."""
    corners = np.array([[c, m, y, k] for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)], float)
    light = 100 * (1 - 0.4 * corners[:, 0]) * (1 - 0.5 * corners[:, 1]) * (1 - 0.1 * corners[:, 2]) * (
        1 - 0.9 * corners[:, 3]
    )  # fmt: skip
    a = (60 * corners[:, 1] - 30 * corners[:, 0]) * (1 - corners[:, 3])
    b = (70 * corners[:, 2] - 40 * corners[:, 0]) * (1 - corners[:, 3])
    table = np.stack([light * 2.55, a + 128, b + 128], axis=1).round().clip(0, 255).astype(np.uint8)
    line = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * one for one in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + line * 4 + table.tobytes() + line * 3
    return profile(b"CMYK", b"Lab ", b"prtr", {"A2B0": lut})
