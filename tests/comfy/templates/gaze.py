"""The eyes follow keyframes while the portrait speaks."""

from . import head_pose

NAME = "06 Draw the gaze"
MOMENTS = (0.4, 1.4, 2.4, 3.4)
KEYFRAMES = """{"version": 2, "channels": {
  "horizontal": [[0, 0], [0.8, 0], [0.88, 12], [1.8, 12], [1.88, -10], [2.8, -10], [2.88, 0]],
  "vertical": [[0, 0], [0.8, 0], [0.88, 4], [1.8, 4], [1.88, -3], [2.8, -3], [2.88, 0]]}}"""


def draw(graph):
    head_pose.draw(graph, "IMTalkerGazeControl", KEYFRAMES, "the eyes")
