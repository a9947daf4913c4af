"""Where the nodes of a workflow stand: links that can be seen, nodes apart, a graph that fits the screen."""

import itertools
import math

import numpy as np
from building import BELOW, HEADING, MARGIN, TITLE

POINTS = np.linspace(0, 1, 41)[:, None]
SLOT, ROW = 14, 20  # where a node's first slot is, and how far apart they are
APART = 20  # between nodes in the same group, between groups
HIGHEST = 1150  # of a graph, so that its titles are drawn when it is opened on a usual screen


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

    def behind(self, places: np.ndarray) -> np.ndarray:
        """places (N,2) of the nodes: how many points of each link lie behind each node, (L,N). What does not count: the
        edges at a link's own two slots, and these nodes altogether where one stands below the other."""
        a, b = places[self.source] + self.start, places[self.target] + self.end
        handle = np.stack([np.hypot(*(b - a).T) / 4, np.zeros(len(a))], axis=1)
        t = POINTS[:, None]
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


def arrange(graph, tries: int = 30000, seed: int = 0) -> None:
    """Moves the nodes of a `Graph` up and down, whole groups too, until its links can be seen: simulated annealing."""
    links, random = Links(graph.nodes, graph.inner_links()), np.random.default_rng(seed)
    places = np.array([node["pos"] for node in graph.nodes], float)
    members = [[number - 1 for number in group["nodes"]] for group in graph.groups]
    grouped = set(itertools.chain(*members))
    blocks = [*members, *([one] for one in range(len(places)) if one not in grouped)]
    # what a node needs around it, above and below, when Nodes 2.0 draws it
    room = np.array([node["size"][1] + TITLE + BELOW + graph.growth(node) for node in graph.nodes], float)

    def cost(at: np.ndarray) -> float:
        left, top, right = at[:, 0], at[:, 1] - TITLE, at[:, 0] + links.sizes[:, 0]
        nodes = np.stack([left, top, right, top + room], axis=1)
        frames = []
        for block in blocks:
            x0, y0, x1, y1 = nodes[block, 0].min(), nodes[block, 1].min(), nodes[block, 2].max(), nodes[block, 3].max()
            lone = block[0] not in grouped
            frames.append((x0 - MARGIN, y0 - (0 if lone else HEADING), x1 + MARGIN, y1 + (0 if lone else MARGIN // 2)))
        frames = np.array(frames)
        height = frames[:, 3].max() - frames[:, 1].min()
        pull = np.abs(at[links.source, 1] - at[links.target, 1]).sum() / 2000
        hidden = np.minimum(links.behind(at), 12).sum()
        empty = height / 400 + sum(y1 - y0 for _, y0, _, y1 in frames) / 3000
        return 6 * (_overlap(nodes) + _overlap(frames)) + hidden + max(0, height - HIGHEST) / 10 + pull + empty

    now = cost(places)
    best, least = places.copy(), now
    for step in range(tries):
        heat = 8 * (1 - step / tries) ** 2 + 0.02
        moved = places.copy()
        kind = random.random()
        if kind < 0.45:
            moved[random.integers(len(places)), 1] += 20 * random.integers(-12, 13)
        elif kind < 0.8:
            moved[blocks[random.integers(len(blocks))], 1] += 20 * random.integers(-20, 21)
        else:
            block = blocks[random.integers(len(blocks))]
            if len(block) > 1:
                one, other = random.choice(block, 2, replace=False)
                moved[[one, other], 1] = moved[[other, one], 1]
        then = cost(moved)
        if then < now or random.random() < math.exp((now - then) / heat):
            places, now = moved, then
            if now < least:
                best, least = places.copy(), now
    best[:, 1] -= best[:, 1].min() - HEADING - TITLE
    for node, place in zip(graph.nodes, best):
        node["pos"] = [int(value) for value in place]


def _overlap(boxes: np.ndarray) -> float:
    """How far boxes reach into each other, with APART around them, in steps of 20."""
    x0, y0, x1, y1 = boxes.T
    wide = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0)
    high = np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0) + APART
    both = np.where((wide > 0) & (high > 0), high / 20 + 1, 0)
    return (both.sum() - np.diag(both).sum()) / 2
