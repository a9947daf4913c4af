"""Makes a workflow, as the page saves it, out of a short description: nodes by their inputs' names, groups by place.

A node's slots, widgets, defaults and size follow from ComfyUI's /object_info, so that a description only says what is
connected, what departs from the defaults, and where each group stands.
"""

import uuid
from contextlib import contextmanager
from typing import NamedTuple

TITLE, ROW, WIDGET, BORDER = 30, 20, 24, 6  # pixels of the page's nodes
BELOW = 40  # under each node: its owner's name in Nodes 2.0, whose widgets are taller too
MARGIN, HEADING = 20, 50  # of a group
# room for what a run shows in the node
PREVIEWS = {
    "SaveVideo": 270,
    "IMTalkerRender": 200,
    "IMTalkerPasteBack": 150,
    "IMTalkerRenderVideo": 205,
    "IMTalkerTalkingHead": 300,
    "IMTalkerDub": 300,
    "PreviewImage": 260,
    "GetVideoComponents": 40,  # newer ones have more outputs
}
PREVIEWS |= dict.fromkeys(
    ("IMTalkerRetargetMotion", "IMTalkerFitLength", "IMTalkerCombineParts", "IMTalkerSilenceGate"), 90
)
EDITORS = {"IMTalkerPoseControl": (660, 420), "IMTalkerGazeControl": (660, 350), "IMTalkerExpression": (660, 560)}
COLOURS = {"Example": "#a1309b", "Models": "#3f789e", "Result": "#8A8"}
KEPT_SEED = "IMTalkerExample"  # the seeds of all others change after each run, so that Run does something again
INNER_INPUT, INNER_OUTPUT = -10, -20  # a subgraph's own ends, as the page numbers them


class Slot(NamedTuple):
    """An output that inputs can be connected to."""

    node: dict
    index: int

    @property
    def type(self) -> str:
        return self.node["outputs"][self.index]["type"]


class Placed:
    """A node of a graph; `node["name"]` is its output of this name."""

    def __init__(self, node: dict):
        self.node = node

    def __getitem__(self, output: str) -> Slot:
        return Slot(self.node, [one["name"] for one in self.node["outputs"]].index(output))


class Graph:
    """info: /object_info of the oldest ComfyUI that the pack supports."""

    BEFORE_FIRST = 0  # nodes are numbered from the next one on

    def __init__(self, info: dict, name: str):
        self.info, self.name = info, name
        self.nodes: list[dict] = []
        self.links: list[list] = []  # number, source, its slot, target, its slot, type
        self.groups: list[dict] = []
        self.subgraphs: list[Subgraph] = []
        self.extra: dict = {}
        self._next_place = [0, 0]
        self._width = 300

    @contextmanager
    def group(self, title: str, x: int, y: int, width: int = 300):
        """Nodes added within stand below each other, in a frame whose top left corner is (x, y)."""
        self._next_place, self._width = [x + MARGIN, y + HEADING + TITLE], width
        first = len(self.nodes)
        yield
        self.groups.append({"title": title, "nodes": [node["id"] for node in self.nodes[first:]]})

    def note(self, text: str, x: int, y: int, width: int, height: int) -> None:
        node = self._node("MarkdownNote", "What to do", [x, y + TITLE], [width, height])
        node["widgets_values"] = [text]

    def skip(self, pixels: int) -> None:
        """Leaves room above the next node of the group, for a link to pass."""
        self._next_place[1] += pixels

    def add(self, kind: "str | Subgraph", title: str | None = None, after: str | None = None, **inputs) -> Placed:
        """A node below the one before. inputs: a `Slot` connects, anything else is a widget's value; after: what a run
        does to its seed."""
        slots, widgets, outputs = kind.face() if isinstance(kind, Subgraph) else self._face(kind)
        type_ = kind.id if isinstance(kind, Subgraph) else kind
        title = title or (kind.name if isinstance(kind, Subgraph) else None)
        width, height = EDITORS.get(type_, (self._width, 0))
        rows = max(len(slots), len(outputs))
        count = len(widgets) + ("seed" in widgets and type_ in self.info)
        height = height or BORDER + ROW * rows + (WIDGET * count + 8 if count else 0) + PREVIEWS.get(type_, 0)
        node = self._node(type_, title, list(self._next_place), [width, height])
        self._next_place[1] += height + BELOW + TITLE + self.growth(node, count)
        for name, spec in slots.items():
            node["inputs"].append({"name": name, **spec, "link": None})
        for name, (input_type, default) in widgets.items():
            node["inputs"].append({"name": name, "type": input_type, "widget": {"name": name}, "link": None})
            given = inputs.get(name, default)
            node["widgets_values"].append(default if isinstance(given, Slot) else given)
            if name == "seed" and type_ in self.info:
                node["widgets_values"].append(after or ("fixed" if type_ == KEPT_SEED else "randomize"))
        if type_.startswith("VHS_"):  # which saves its widgets by name
            node["widgets_values"] = dict(zip(widgets, node["widgets_values"]))
        node["outputs"] = [{"name": name, "type": output, "links": None} for name, output in outputs]
        placed = Placed(node)
        for name, value in inputs.items():
            if name not in {entry["name"] for entry in node["inputs"]}:
                raise KeyError(f"{type_} has no input {name}")
            if isinstance(value, Slot):
                self.connect(value, placed, name)
        return placed

    def connect(self, source: Slot, target: Placed, name: str) -> None:
        self._connect(source, target.node, [entry["name"] for entry in target.node["inputs"]].index(name))

    def subgraph(self, name: str, **inputs: str) -> "Subgraph":
        """A graph to add as a node, as often as wanted. inputs: the type of each."""
        self.subgraphs.append(Subgraph(self.info, name, f"{self.name}/{name}", inputs))
        return self.subgraphs[-1]

    def offer(self, inputs: list[tuple[Placed, str]], output: Placed) -> None:
        """What the page's App mode shows: these widgets and this result."""
        self.extra["linearData"] = {
            "inputs": [[placed.node["id"], widget] for placed, widget in inputs],
            "outputs": [output.node["id"]],
        }

    @staticmethod
    def growth(node: dict, widgets: int | None = None) -> int:
        """How much taller Nodes 2.0 draws a node."""
        if node["type"] in EDITORS:
            return 40
        return 3 * len(node["inputs"]) + 10 * (len(node["widgets_values"]) if widgets is None else widgets)

    def frames(self) -> list[dict]:
        """The groups, each around its nodes."""
        found = []
        for number, group in enumerate(self.groups, 1):
            nodes = [self.nodes[one - self.BEFORE_FIRST - 1] for one in group["nodes"]]
            x = min(node["pos"][0] for node in nodes) - MARGIN
            y = min(node["pos"][1] for node in nodes) - TITLE - HEADING
            right = max(node["pos"][0] + node["size"][0] for node in nodes) + MARGIN
            bottom = max(node["pos"][1] + node["size"][1] + self.growth(node) for node in nodes) + BELOW + MARGIN // 2
            frame = {"id": number, "title": group["title"], "bounding": [x, y, right - x, bottom - y]}
            found.append(frame | {"color": COLOURS.get(group["title"], "#88A"), "font_size": 24, "flags": {}})
        return found

    def workflow(self) -> dict:
        content = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, self.name)),
            "revision": 0,
            "last_node_id": max(node["id"] for graph in (self, *self.subgraphs) for node in graph.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.frames(),
        }
        if self.subgraphs:
            content["definitions"] = {"subgraphs": [one.definition() for one in self.subgraphs]}
        return content | {"config": {}, "extra": self.extra, "version": 0.4}

    def know(self, foreign: dict[str, tuple[dict, dict]]) -> None:
        """Adds kinds of other packs: their inputs as /object_info gives them, and the types of their outputs."""
        self.info = self.info | {
            kind: {"input": {"required": inputs}, "output": list(outputs.values()), "output_name": list(outputs)}
            for kind, (inputs, outputs) in foreign.items()
        }

    def _face(self, kind: str) -> tuple[dict, dict, list]:
        """Of a kind of node: its slots, its widgets with their types and defaults, and its outputs."""
        spec = self.info[kind]
        slots, widgets = {}, {}
        for part in ("required", "optional"):
            for name, (input_type, *rest) in spec["input"].get(part, {}).items():
                options = rest[0] if rest else {}
                if isinstance(input_type, list):
                    input_type, options = "COMBO", {"options": input_type, **options}
                if input_type in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") and not options.get("forceInput"):
                    empty = (options.get("options") or [None])[0] if input_type == "COMBO" else ""
                    widgets[name] = (input_type, options.get("default", empty))
                else:
                    slots[name] = {"type": input_type} | ({"shape": 7} if part == "optional" else {})
        return slots, widgets, list(zip(spec["output_name"], spec["output"]))

    def _node(self, kind: str, title: str | None, place: list, size: list) -> dict:
        node = {"id": self.BEFORE_FIRST + len(self.nodes) + 1, "type": kind} | ({"title": title} if title else {})
        node |= {"pos": place, "size": size, "flags": {}, "order": len(self.nodes), "mode": 0}
        node |= {"inputs": [], "outputs": [], "properties": {}, "widgets_values": []}
        if kind in self.info:
            node["properties"] = {"Node name for S&R": kind}
        self.nodes.append(node)
        return node

    def _connect(self, source: Slot, target: dict, place: int) -> None:
        number = len(self.links) + 1
        output = source.node["outputs"][source.index]
        output["links"] = [*(output["links"] or []), number]
        if place < len(target["inputs"]):
            target["inputs"][place]["link"] = number
        self.links.append([number, source.node["id"], source.index, target["id"], place, source.type])


class Subgraph(Graph):
    """A graph with inputs and outputs; `subgraph["name"]` is an input, to connect nodes within."""

    BEFORE_FIRST = 100  # newer pages number nodes anew whose number is also one of the graph around

    def __init__(self, info: dict, name: str, path: str, inputs: dict[str, str]):
        super().__init__(info, name)
        self.id = str(uuid.uuid5(uuid.NAMESPACE_URL, path))
        ends = [{"name": key, "type": value, "links": None} for key, value in inputs.items()]
        self.start = {"id": INNER_INPUT, "outputs": ends}
        self.end = {"id": INNER_OUTPUT, "inputs": []}
        self.ends: list[dict] = []
        self.values: dict[str, tuple] = {}  # inputs that are widgets within: their types and defaults

    def __getitem__(self, name: str) -> Slot:
        return Slot(self.start, [one["name"] for one in self.start["outputs"]].index(name))

    def add(self, kind, title=None, after=None, **inputs) -> Placed:
        placed = super().add(kind, title, after, **inputs)
        for entry in placed.node["inputs"]:
            value = inputs.get(entry["name"])
            if "widget" in entry and isinstance(value, Slot) and value.node is self.start:
                default = self._face(kind)[1][entry["name"]]
                self.values[self.start["outputs"][value.index]["name"]] = default
        return placed

    def output(self, name: str, slot: Slot) -> None:
        self._connect(slot, self.end, len(self.ends))
        self.ends.append({"name": name, "type": slot.type, "link": len(self.links)})

    def face(self) -> tuple[dict, dict, list]:
        slots = {one["name"]: {"type": one["type"]} for one in self.start["outputs"] if one["name"] not in self.values}
        return slots, self.values, [(one["name"], one["type"]) for one in self.ends]

    def definition(self) -> dict:
        left = min(node["pos"][0] for node in self.nodes)
        right = max(node["pos"][0] + node["size"][0] for node in self.nodes)

        def end(entries: list[dict], direction: str) -> list[dict]:
            return [
                {
                    "id": str(uuid.uuid5(uuid.UUID(self.id), f"{direction} {entry['name']}")),
                    "name": entry["name"],
                    "type": entry["type"],
                    "linkIds": entry["links"] if direction == "input" else [entry["link"]],
                }
                for entry in entries
            ]

        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        return {
            "id": self.id,
            "version": 1,
            "state": {"lastGroupId": len(self.groups), "lastNodeId": self.BEFORE_FIRST + len(self.nodes)}
            | {"lastLinkId": len(self.links), "lastRerouteId": 0},
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": INNER_INPUT, "bounding": [left - 240, 60, 120, 40 + 20 * len(self.start["outputs"])]},
            "outputNode": {"id": INNER_OUTPUT, "bounding": [right + 120, 60, 120, 40 + 20 * len(self.ends)]},
            "inputs": end(self.start["outputs"], "input"),
            "outputs": end(self.ends, "output"),
            "widgets": [],
            "nodes": self.nodes,
            "groups": self.frames(),
            "links": [dict(zip(keys, link)) for link in self.links],
            "extra": {},
        }
