"""Detect video files by content. Only files that start like a video container are passed to FFmpeg.

FFmpeg also renders text files and reads playlists, which can refer to other files and URLs.
"""

from pathlib import Path

from streamvggt.file_kinds import is_heif_start

STARTS = {
    b"\x1a\x45\xdf\xa3": ".mkv",
    b"FLV": ".flv",
    b"OggS": ".ogv",
    b"\x30\x26\xb2\x75": ".wmv",
    b"\x00\x00\x01\xba": ".mpg",
    b"\x00\x00\x01\xb3": ".mpg",
    b"\x00\x00\x01\xb0": ".m4v",  # elementary streams of MPEG-4, H.264 and H.265
    b"\x00\x00\x00\x01\x67": ".h264",
    b"\x00\x00\x00\x01\x09": ".h264",
    b"\x00\x00\x00\x01\x40": ".hevc",
    b"YUV4MPEG2": ".y4m",
    b"DKIF": ".ivf",
    b"\x06\x0e\x2b\x34": ".mxf",
    b".RMF": ".rm",
}

FFMPEG_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,h264,hevc,m4v,mxf,rm,ivf,"
    "yuv4mpegpipe,hls,dash,rtsp,rtp,sdp,mjpeg,mpjpeg"
)
"""FFmpeg names of accepted containers and live-stream protocols, for `format_whitelist`."""


def video_suffix(path: Path) -> str | None:
    """Return the suffix that fits the content of a video file, or None if the container is not supported."""
    with open(path, "rb") as file:
        head = file.read(600)
    if is_heif_start(head) or head[4:12] == b"ftypcrx ":
        return None
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return ".mp4"
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX"):
        return ".avi"
    for packet, offset, suffix in ((188, 0, ".ts"), (192, 4, ".m2ts")):
        if len(head) > offset + 2 * packet and all(head[offset + k * packet] == 0x47 for k in range(3)):
            return suffix
    return next((suffix for start, suffix in STARTS.items() if head.startswith(start)), None)
