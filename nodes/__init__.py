"""The graph: one module per stage of the pipeline, in the order an artist meets them."""

from . import control, encode, face, load, motion, render, sample, talk

NODES = [node for stage in (load, face, encode, control, sample, motion, render, talk) for node in stage.NODES]
