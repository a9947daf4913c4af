"""Where the nodes of a workflow stand: links that can be seen, nodes apart, a graph that fits the screen."""

import math
from collections.abc import Callable

import numpy as np
from building import BELOW, HEADING, MARGIN, TITLE

FINE, COARSE = (np.linspace(0, 1, count)[:, None, None] for count in (41, 15))  # points along a link
SLOT, ROW = 14, 20  # where a node's first slot is, and how far apart they are
APART = 20  # between nodes in the same group, between groups
HIGHEST = 1100  # of a graph, so that its titles are drawn when it is opened on a usual screen


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

    def behind(self, places: np.ndarray, t: np.ndarray = FINE) -> np.ndarray:
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


def arrange(graph, starts: int = 4, tries: int = 12000) -> None:
    """Moves the nodes of a `Graph` up and down, whole groups too, until its links can be seen: simulated annealing, the
    best of several. A few minutes."""
    links = Links(graph.nodes, graph.inner_links())
    places = np.array([node["pos"] for node in graph.nodes], float)
    groups = [np.array(group["nodes"]) - 1 for group in graph.groups]
    lone = [np.array([one]) for one in range(len(places)) if not any(one in group for group in groups)]
    blocks = groups + lone
    order, heads = np.concatenate(blocks), np.cumsum([0, *map(len, blocks[:-1])])
    framed = np.array([1] * len(groups) + [0] * len(lone))
    stacked = places[links.source, 0] == places[links.target, 0]
    # what a node needs when Nodes 2.0 draws it
    room = np.array([node["size"][1] + TITLE + BELOW + graph.growth(node) for node in graph.nodes], float)

    def cost(at: np.ndarray) -> float:
        left, top, right = at[:, 0], at[:, 1] - TITLE, at[:, 0] + links.sizes[:, 0]
        nodes = np.stack([left, top, right, top + room], axis=1)
        first, last = (reduce.reduceat(nodes[order], heads) for reduce in (np.minimum, np.maximum))
        frames = np.stack(
            [
                first[:, 0] - MARGIN,
                first[:, 1] - HEADING * framed,
                last[:, 2] + MARGIN,
                last[:, 3] + MARGIN // 2 * framed,
            ],
            axis=1,
        )
        height = frames[:, 3].max() - frames[:, 1].min()
        pull = np.abs(at[links.source, 1] - at[links.target, 1]).sum() / 2000
        hidden = np.minimum(3 * links.behind(at, COARSE), 12).sum()
        spread = (frames[:, 3] - frames[:, 1]).sum() / 3000
        overlap = 6 * (_overlap(nodes) + _overlap(frames))
        upward = 5 * (stacked & (at[links.source, 1] > at[links.target, 1])).sum()
        return overlap + hidden + upward + max(0, height - HIGHEST) / 8 + height / 400 + spread + pull

    found = min((_anneal(places, blocks, cost, tries, seed) for seed in range(starts)), key=cost)
    found[:, 1] -= found[:, 1].min() - HEADING - TITLE
    for node, place in zip(graph.nodes, found):
        node["pos"] = [int(value) for value in place]


def _anneal(places: np.ndarray, blocks: list[np.ndarray], cost: Callable, tries: int, seed: int) -> np.ndarray:
    """The best places found. blocks: the nodes of each group, which move together and change places."""
    random, now = np.random.default_rng(seed), cost(places)
    best, least = places, now
    for step in range(tries):
        heat = 12 * (1 - step / tries) ** 2 + 0.02
        moved, kind = places.copy(), random.random()
        block, other = (blocks[one] for one in random.integers(len(blocks), size=2))
        if kind < 0.4:
            moved[random.integers(len(places)), 1] += 20 * random.integers(-12, 13)
        elif kind < 0.75:
            moved[block, 1] += 20 * random.integers(-25, 26)
        elif kind < 0.9 and len(block) > 1:
            pair = random.choice(block, 2, replace=False)
            moved[pair, 1] = moved[pair[::-1], 1]
        else:
            way = moved[block, 1].min() - moved[other, 1].min()
            moved[block, 1] -= way
            moved[other, 1] += way
        then = cost(moved)
        if then < now or random.random() < math.exp((now - then) / heat):
            places, now = moved, then
            if now < least:
                best, least = places, now
    return best.copy()


def _overlap(boxes: np.ndarray) -> float:
    """How far boxes reach into each other, with APART around them, in steps of 20."""
    x0, y0, x1, y1 = boxes.T
    wide = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0)
    high = np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0) + APART
    both = np.where((wide > 0) & (high > 0), high / 20 + 1, 0)
    return (both.sum() - np.diag(both).sum()) / 2
