"""Where the nodes and links of a workflow are, as the page draws them."""

import numpy as np
from building import BELOW, TITLE

POINTS = np.linspace(0, 1, 41)[:, None, None]  # along a link
SLOT, ROW = 14, 20  # where a node's first slot is, and how far apart they are


def rectangles(workflow: dict) -> tuple[np.ndarray, np.ndarray]:
    """Of nodes with their titles (N,4), and of groups (M,4): left, top, right, bottom."""
    nodes = [(*node["pos"], *node["size"]) for node in workflow["nodes"]]
    groups = [group["bounding"] for group in workflow["groups"]]
    return (
        np.array([(x, y - TITLE, x + width, y + height) for x, y, width, height in nodes], float),
        np.array([(x, y, x + width, y + height) for x, y, width, height in groups], float),
    )


class Links:
    """The links of a workflow as the page draws them: splines that leave to the right and arrive from the left, their
    handles a quarter of the distance long."""

    def __init__(self, nodes: list[dict], links: list[list]):
        index = {node["id"]: number for number, node in enumerate(nodes)}
        self.numbers = [link[0] for link in links]
        self.source = np.array([index[link[1]] for link in links], int)
        self.target = np.array([index[link[3]] for link in links], int)
        starts = [(nodes[s]["size"][0] - 9, ROW * link[2] + SLOT) for s, link in zip(self.source, links)]
        ends = [(10, ROW * _row(nodes[t], link[4]) + SLOT) for t, link in zip(self.target, links)]
        self.start, self.end = (np.array(points, float).reshape(-1, 2) for points in (starts, ends))
        # under each of our nodes Nodes 2.0 writes whose it is
        self.below = np.array([BELOW * node["type"].startswith("IMTalker") for node in nodes])
        self.sizes = np.array([node["size"] for node in nodes], float)

    def behind(self, places: np.ndarray, t: np.ndarray = POINTS) -> np.ndarray:
        """places (N,2) of the nodes: how many of the points t of each link lie behind each node, (L,N).

        What does not count: the edges at a link's own two slots, and these nodes where one stands below the other."""
        a, b = places[self.source] + self.start, places[self.target] + self.end
        handle = np.stack([np.hypot(*(b - a).T) / 4, np.zeros(len(a))], axis=1)
        x, y = np.moveaxis(
            (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * (a + handle) + 3 * (1 - t) * t**2 * (b - handle) + t**3 * b, 2, 0
        )
        own = np.arange(len(places))
        left = places[:, 0] + 20 * (own == self.target[:, None])
        right = places[:, 0] + self.sizes[:, 0] - 20 * (own == self.source[:, None])
        top, bottom = places[:, 1] - TITLE, places[:, 1] + self.sizes[:, 1] + self.below
        x, y = x[:, :, None], y[:, :, None]
        stacked = np.abs(places[self.source, 0] - places[self.target, 0])[:, None] < self.sizes[:, 0].min()
        ends = (own == self.source[:, None]) | (own == self.target[:, None])
        return ((x > left) & (x < right) & (y > top) & (y < bottom) & ~(stacked & ends)).sum(axis=0)


def _row(node: dict, place: int) -> int:
    """The row of an input: those of widgets lie below the others."""
    entries = node["inputs"]
    return sum("widget" not in entry for entry in entries[: place if "widget" not in entries[place] else None])


def hidden_links(workflow: dict) -> list[tuple[int, str]]:
    """Links that pass behind a node, and which node."""
    nodes = workflow["nodes"]
    links = Links(nodes, workflow["links"])
    behind = links.behind(np.array([node["pos"] for node in nodes], float))
    return [(links.numbers[link], nodes[n].get("title", nodes[n]["type"])) for link, n in np.argwhere(behind)]
