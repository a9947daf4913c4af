"""Names the kind of a file that a reader does not know, by its first bytes."""

from pathlib import Path

LONGEST = 512  # bytes read
STARTS = {  # lower case
    b"8bps": "a Photoshop file (PSD)",
    b"\x00\x00\x01\x00": "an icon (ICO)",
    b"\x00\x00\x02\x00": "a cursor (CUR)",
    b"icns": "an icon (ICNS)",
    b"\xff\x0a": "a JPEG XL",
    b"\x00\x00\x00\x0cjxl ": "a JPEG XL",
    b"v/1\x01": "an OpenEXR picture",
    b"#?radiance": "a Radiance HDR picture",
    b"#?rgbe": "a Radiance HDR picture",
    b"dds ": "a DDS texture",
    b"qoif": "a QOI picture",
    b"gimp xcf": "a GIMP file (XCF)",
    b"%!ps": "PostScript",
    b"%pdf": "a PDF",
    b"<svg": "an SVG drawing",
    b"<?xml": "an SVG drawing or another XML file",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"gguf": "a GGUF file",
    b"\x93numpy": "a NumPy file",
    b"\x89hdf": "an HDF5 file",
    b"pk\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"rar!": "a RAR archive",
    b"\x1a\x45\xdf\xa3": "a Matroska or WebM video",
    b"id3": "a sound",
    b"oggs": "a sound or a video",
    b"flac": "a sound",
    b"dsd ": "a DSD sound",
}
RIFF = {b"wave": "a sound", b"avi ": "an AVI video", b"webp": "a WebP picture"}
BRANDS = {  # of ISO media files, after "ftyp"
    b"heic": "a HEIC picture",
    b"heix": "a HEIC picture",
    b"heim": "a HEIC picture",
    b"hevc": "a HEIC picture",
    b"mif1": "a HEIF picture",
    b"msf1": "a HEIF picture",
    b"avif": "an AVIF picture",
    b"avis": "an AVIF picture",
    b"crx ": "a camera's raw picture",
}


def kind_of(path: Path) -> str | None:
    """What a file is, as part of a sentence ("a PDF"), or None if it is nothing known. OSError: unreadable."""
    with path.open("rb") as file:
        start = file.read(LONGEST).lower()
    if start[4:8] == b"ftyp":
        return BRANDS.get(start[8:12], "a video or a sound")
    if start[:4] == b"riff":
        return RIFF.get(start[8:12])
    if start[257:262] == b"ustar":
        return "a tar archive"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((kind for magic, kind in STARTS.items() if start.startswith(magic) or text.startswith(magic)), None)
