"""Which media formats are read, and what any other kind of file is called, by its first bytes."""

from dataclasses import dataclass
from pathlib import Path

# FFmpeg's names. No playlists (HLS, DASH, concat): they would make FFmpeg open other files, even over the network.
FORMATS = (
    "aac,ac3,aiff,amr,ape,apng,asf,au,avi,caf,dsf,dts,dv,eac3,flac,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp3,"
    "mpeg,mpegts,mpegvideo,mxf,nistsphere,nut,obu,ogg,rm,tak,truehd,tta,voc,w64,wav,wtv,wv,yuv4mpegpipe"
)
# Formats whose time stamps were measured. In the others they are counted, so that they say nothing about gaps.
TIMED = {"asf", "avi", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mpeg", "mpegts", "mxf", "nut", "ogg", "wtv"}

SOUND, FILM = "WAV or FLAC", "MP4"


@dataclass(frozen=True)
class Kind:
    """A kind of file: `name` as part of a sentence ("a PDF"), and what to convert it to for sound or video.

    better: None if it is read as sound or video, so that only damage can keep it from being read.
    """

    name: str
    better: str | None


# How files begin: offset, bytes, what it is, what to convert it to. Texts in lower case, which may follow white space.
KNOWN = (
    (0, b"FRM8", "a DSDIFF recording", SOUND),
    (0, b"MThd", "a MIDI file, which holds notes and no sound", SOUND),
    (8, b"RMID", "a MIDI file, which holds notes and no sound", SOUND),
    (0, b"ajkg", "a Shorten recording", SOUND),
    (0, b"MPCK", "a Musepack recording", SOUND),
    (0, b"MP+", "a Musepack recording", SOUND),
    (0, b"OFR ", "an OptimFROG recording", SOUND),
    (0, b"XWMA", "an xWMA recording", SOUND),
    (8, b"XWMA", "an xWMA recording", SOUND),
    (8, b"WEBP", "a WebP picture or animation", FILM),
    (4, b"ftypavif", "an AVIF picture", FILM),
    (4, b"ftypavis", "an AVIF animation", FILM),
    (4, b"ftyphevc", "a HEIC animation", FILM),
    (4, b"ftypmsf1", "a HEIC animation", FILM),
    (4, b"ftyphei", "a HEIC picture", FILM),
    (4, b"ftypmif1", "a HEIC or AVIF picture", FILM),
    (4, b"ftypcrx ", "a camera's raw picture", FILM),
    (0, b"\xff\x0a", "a JPEG XL picture", FILM),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture", FILM),
    (0, b"\x89PNG", "a PNG picture", FILM),
    (0, b"\x8aMNG", "an MNG animation", FILM),
    (0, b"\xff\xd8\xff", "a JPEG picture", FILM),
    (0, b"BM", "a BMP picture", FILM),
    (0, b"II*\x00", "a TIFF or raw picture", FILM),
    (0, b"MM\x00*", "a TIFF picture", FILM),
    (0, b"8BPS", "a Photoshop picture (PSD)", FILM),
    (0, b"gimp xcf", "a GIMP picture (XCF)", FILM),
    (0, b"\x00\x00\x01\x00", "an icon (ICO)", FILM),
    (0, b"\x00\x00\x02\x00", "a cursor (CUR)", FILM),
    (0, b"icns", "an icon (ICNS)", FILM),
    (0, b"v/1\x01", "an OpenEXR picture", FILM),
    (0, b"#?radiance", "a Radiance HDR picture", FILM),
    (0, b"#?rgbe", "a Radiance HDR picture", FILM),
    (0, b"DDS ", "a DDS texture", FILM),
    (0, b"qoif", "a QOI picture", FILM),
    (0, b"FWS", "a Flash animation", FILM),
    (0, b"CWS", "a Flash animation", FILM),
    (0, b"ZWS", "a Flash animation", FILM),
    (0, b"#extm3u", "a playlist, which holds no sound or video itself", FILM),
    (0, b"ffconcat", "a playlist, which holds no sound or video itself", FILM),
    (0, b"<svg", "an SVG drawing", FILM),
    (0, b"<?xml", "an SVG drawing or another XML file", FILM),
    (0, b"<!doctype", "a web page, perhaps in place of a download", FILM),
    (0, b"<html", "a web page, perhaps in place of a download", FILM),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", FILM),
    (0, b"%pdf", "a PDF document", FILM),
    (0, b"%!ps", "a PostScript document", FILM),
    (0, b"PK\x03\x04", "a ZIP archive", FILM),
    (0, b"Rar!", "a RAR archive", FILM),
    (0, b"7z\xbc\xaf", "a 7-Zip archive", FILM),
    (0, b"\x1f\x8b", "a gzip archive", FILM),
    (257, b"ustar", "a tar archive", FILM),
    (0, b"GGUF", "a GGUF file", FILM),
    (0, b"\x93NUMPY", "a NumPy file", FILM),
    (0, b"\x89HDF", "an HDF5 file", FILM),
    (8, b"WAVE", "a sound", None),
    (8, b"AVI ", "an AVI video", None),
    (4, b"ftyp", "a video or a sound", None),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM video", None),
    (0, b"ID3", "a sound", None),
    (0, b"OggS", "a sound or a video", None),
    (0, b"fLaC", "a sound", None),
    (0, b"DSD ", "a DSD sound", None),
)
LONGEST = 512  # bytes read


def kind_of(path: Path) -> Kind | None:
    """What a file is by its first bytes, or None if it is nothing known. OSError: unreadable."""
    with path.open("rb") as file:
        head = file.read(LONGEST)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for at, magic, name, better in KNOWN:
        if head.startswith(magic, at) or (at == 0 and text.startswith(magic)):
            return Kind(name, better)
    return None
