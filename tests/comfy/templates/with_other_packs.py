"""Reenactment with VideoHelperSuite and KJNodes. Needs those packs, so it is not among the templates: docs/graphs."""

from . import parts

NAME = "With VideoHelperSuite and KJNodes"
FOLDER = "docs/graphs"

INT, FLOAT, STRING, YES_NO = "INT", "FLOAT", "STRING", "BOOLEAN"
# inputs, outputs: what their /object_info says (VideoHelperSuite of May 2026, KJNodes of 2026)
FOREIGN = {
    "VHS_LoadVideo": (
        {"video": (["driving.mp4"],), "force_rate": (FLOAT, {"default": 0}), "custom_width": (INT, {"default": 0})}
        | {"custom_height": (INT, {"default": 0}), "frame_load_cap": (INT, {"default": 0})}
        | {"skip_first_frames": (INT, {"default": 0}), "select_every_nth": (INT, {"default": 1})}
        | {"format": (["AnimateDiff"],)},
        {"IMAGE": "IMAGE", "frame_count": "INT", "audio": "AUDIO", "video_info": "VHS_VIDEOINFO"},
    ),
    "VHS_VideoInfoLoaded": (
        {"video_info": ("VHS_VIDEOINFO",)},
        {"fps🟦": "FLOAT", "frame_count🟦": "INT", "duration🟦": "FLOAT", "width🟦": "INT", "height🟦": "INT"},
    ),
    "VHS_VideoCombine": (
        {"images": ("IMAGE",), "audio": ("AUDIO",), "frame_rate": (FLOAT, {"default": 8})}
        | {"loop_count": (INT, {"default": 0}), "filename_prefix": (STRING, {"default": "AnimateDiff"})}
        | {"format": (["video/h264-mp4"],), "pingpong": (YES_NO, {"default": False})}
        | {"save_output": (YES_NO, {"default": True})},
        {"Filenames": "VHS_FILENAMES"},
    ),
    "ImageResizeKJv2": (
        {"image": ("IMAGE",), "width": (INT, {"default": 512}), "height": (INT, {"default": 512})}
        | {"upscale_method": (["lanczos"],), "keep_proportion": (["resize"],)}
        | {"pad_color": (STRING, {"default": "0, 0, 0"}), "crop_position": (["center"],)}
        | {"divisible_by": (INT, {"default": 2}), "device": (["cpu"],)},
        {"IMAGE": "IMAGE", "width": "INT", "height": "INT", "mask": "MASK"},
    ),
}


def draw(graph):
    graph.know(FOREIGN)
    with graph.group("Pictures", 0, 0):
        picture = graph.add("LoadImage", image="portrait.png")
        driving = graph.add("VHS_LoadVideo", video="driving.mp4")
        rate = graph.add("VHS_VideoInfoLoaded", video_info=driving["video_info"])["fps🟦"]
    with graph.group("Models", 0, 980):
        renderer = graph.add("IMTalkerLoadRenderer")["renderer"]
    with graph.group("Crop", 400, 0):
        resized = graph.add("ImageResizeKJv2", image=picture["IMAGE"], width=1024, height=1024)
        portrait = graph.add("IMTalkerFaceCrop", "Portrait: Face Crop", image=resized["IMAGE"])
        followed = graph.add("IMTalkerFaceCrop", "Driving video: Face Crop", image=driving["IMAGE"])
    with graph.group("Encode", 800, 0):
        source = graph.add("IMTalkerEncodeSource", renderer=renderer, image=portrait["image"])["source"]
        motion = graph.add("IMTalkerEncodeMotion", renderer=renderer, images=followed["image"], fps=rate)
    with graph.group("Render", 1200, 0):
        frames = graph.add("IMTalkerRender", renderer=renderer, source=source, motion=motion["motion"])
    with graph.group("Result", 1600, 0):
        graph.add(
            "VHS_VideoCombine",
            images=frames["images"],
            audio=driving["audio"],
            frame_rate=frames["fps"],
            filename_prefix="IMTalker",
        )
    parts.note(
        graph,
        820,
        700,
        640,
        "Needs the packs VideoHelperSuite and KJNodes. Choose a picture and a driving video. The first run downloads "
        "the published renderer (2.1 GB).",
        "**frame_load_cap**, **skip_first_frames** and **select_every_nth** choose frames; the rate follows by "
        "Video Info.",
        "For drawn heads choose **avatar** in Load IMTalker Renderer.",
    )
