"""The nodes: one module per stage of the pipeline, in the order an artist meets them."""

from . import (
    control,
    dub,
    encode,
    example,
    expression,
    face,
    keyframes,
    load,
    motion,
    paste,
    render,
    rig,
    sample,
    shape,
    talk,
    tracking,
)

STAGES = (
    *(example, load, rig, face, encode, control, tracking, keyframes, sample, motion, shape, expression),
    *(render, paste, talk, dub),
)
NODES = [node for stage in STAGES for node in stage.NODES]
