"""Which media formats are read, and the names of those that are not."""

from pathlib import Path

# FFmpeg's names. No playlists (HLS, DASH, concat): they would make FFmpeg open other files, even over the network.
FORMATS = (
    "aac,ac3,aiff,amr,ape,apng,asf,au,avi,caf,dsf,dts,dv,eac3,flac,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp3,"
    "mpeg,mpegts,mpegvideo,mxf,nistsphere,nut,obu,ogg,rm,tak,truehd,tta,voc,w64,wav,wtv,wv,yuv4mpegpipe"
)
# Formats whose time stamps were measured. In the others they are counted, so that they say nothing about gaps.
TIMED = {"asf", "avi", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mpeg", "mpegts", "mxf", "nut", "ogg", "wtv"}

SOUND, FILM = "WAV or FLAC", "MP4"
# How files begin: offset, bytes, what it is, what to convert it to.
KNOWN = (
    (0, b"FRM8", "a DSDIFF recording", SOUND),
    (0, b"MThd", "a MIDI file, which holds notes and no sound", SOUND),
    (0, b"ajkg", "a Shorten recording", SOUND),
    (0, b"MPCK", "a Musepack recording", SOUND),
    (0, b"MP+", "a Musepack recording", SOUND),
    (0, b"OFR ", "an OptimFROG recording", SOUND),
    (0, b"XWMA", "an xWMA recording", SOUND),
    (8, b"XWMA", "an xWMA recording", SOUND),
    (8, b"RMID", "a MIDI file, which holds notes and no sound", SOUND),
    (8, b"WEBP", "a WebP picture or animation", FILM),
    (4, b"ftypavif", "an AVIF picture", FILM),
    (4, b"ftypavis", "an AVIF animation", FILM),
    (4, b"ftyphei", "a HEIC picture", FILM),
    (4, b"ftypmif1", "a HEIC or AVIF picture", FILM),
    (4, b"ftypmsf1", "a HEIC animation", FILM),
    (0, b"\xff\x0a", "a JPEG XL picture", FILM),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture", FILM),
    (0, b"\x89PNG", "a PNG picture", FILM),
    (0, b"\x8aMNG", "an MNG animation", FILM),
    (0, b"\xff\xd8\xff", "a JPEG picture", FILM),
    (0, b"BM", "a BMP picture", FILM),
    (0, b"II*\x00", "a TIFF or raw picture", FILM),
    (0, b"MM\x00*", "a TIFF picture", FILM),
    (0, b"8BPS", "a Photoshop picture", FILM),
    (0, b"FWS", "a Flash animation", FILM),
    (0, b"CWS", "a Flash animation", FILM),
    (0, b"ZWS", "a Flash animation", FILM),
    (0, b"#EXTM3U", "a playlist, which holds no sound or video itself", FILM),
    (0, b"ffconcat", "a playlist, which holds no sound or video itself", FILM),
    (0, b"<?xml", "an XML document", FILM),
    (0, b"<!DOCTYPE", "a web page, perhaps in place of a download", FILM),
    (0, b"<html", "a web page, perhaps in place of a download", FILM),
    (0, b"%PDF", "a PDF document", FILM),
    (0, b"PK\x03\x04", "a ZIP archive: unpack it", FILM),
    (0, b"Rar!", "a RAR archive: unpack it", FILM),
    (0, b"7z\xbc\xaf", "a 7-Zip archive: unpack it", FILM),
    (0, b"\x1f\x8b", "a gzip archive: unpack it", FILM),
)


def name_of(path: Path) -> tuple[str, str] | None:
    """What a file that is not read is by its first bytes, and what to convert it to; None if it is none of KNOWN."""
    with path.open("rb") as file:
        head = file.read(16)
    return next(((what, better) for at, magic, what, better in KNOWN if head[at : at + len(magic)] == magic), None)
