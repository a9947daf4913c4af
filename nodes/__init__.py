"""The nodes: one module per stage of the pipeline, in the order an artist meets them."""

from . import control, encode, example, face, keyframes, load, motion, paste, render, rig, sample, talk, tracking

NODES = [
    node
    for stage in (example, load, face, encode, control, tracking, keyframes, sample, motion, rig, render, paste, talk)
    for node in stage.NODES
]
