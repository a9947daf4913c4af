"""How newer pages show the nodes: the search, folded inputs, colours of links, and an error in its node."""

import json
import re

import pytest
from browser import EMPTY_GRAPH, Page, open_page
from graphs import node

# what an artist may type: the node that should be first
FIRST = {
    "lip sync": "IMTalkerTalkingHead",
    "talking head": "IMTalkerTalkingHead",
    "portrait": "IMTalkerTalkingHead",
    "avatar": "IMTalkerTalkingHead",
    "数字人": "IMTalkerTalkingHead",
    "reenact": "IMTalkerEncodeMotion",
    "driving video": "IMTalkerEncodeMotion",
    "head pose": "IMTalkerPoseControl",
    "gaze": "IMTalkerGazeControl",
    "relative motion": "IMTalkerRetargetMotion",
    "lips only": "IMTalkerCombineParts",
    "crop face": "IMTalkerFaceCrop",
    "paste face": "IMTalkerPasteBack",
}
# ComfyUI puts names before search words, and services have these words in their names: they stand above our node, as
# may our own blueprint that does the same
NAMED_AFTER_IT = {"lip sync", "avatar"}

SEARCH = """words => {
    const { $pinia } = document.querySelector('#vue-app').__vue_app__.config.globalProperties
    const { nodeSearchService } = $pinia._s.get('nodeDef')
    return words.map(word => nodeSearchService.searchNode(word, [], { limit: 64 })
        .filter(({ python_module }) => python_module !== 'blueprint')
        .map(({ name, api_node }) => ({ name, isService: Boolean(api_node) })))
}"""

COLOURS = """() => ({
    node: LiteGraph.NODE_DEFAULT_BGCOLOR,
    links: app.canvas.constructor.link_type_colors,
    slots: app.canvas.default_connection_color_byType,
    css: Object.fromEntries(Object.keys(app.canvas.default_connection_color_byType).map(kind =>
        [kind, getComputedStyle(document.documentElement).getPropertyValue(`--color-datatype-${kind}`).trim()])),
})"""

# "shown": the sentence in the page; the rest: the node's widgets, and what would be saved of it
FAILURE = """kind => {
    const node = app.graph.nodes.find(one => one.type === kind)
    const { size, widgets_values } = node.serialize()
    const shown = [...document.querySelectorAll('.imtalker-failure')].filter(one => one.offsetHeight)
    return { shown: shown.map(one => one.innerText), widgets: node.widgets.map(one => one.name),
        height: node.size[1], size: [...size], values: [...widgets_values] }
}"""


@pytest.fixture(scope="module")
def newer(running, browser):
    """The newer ComfyUI's own page."""
    with open_page(browser, running("new")) as page:
        yield page


@pytest.mark.parametrize("name", ["newer", "newest_page"])
def test_the_search_finds_the_right_node_first(name, request):
    page = request.getfixturevalue(name)
    for (word, wanted), found in zip(FIRST.items(), page.page.evaluate(SEARCH, list(FIRST)), strict=True):
        rivals = [one["name"] for one in found if not (one["isService"] and word in NAMED_AFTER_IT)]
        assert rivals[0] == wanted, word


def test_rarely_used_inputs_are_folded_and_one_node_is_an_essential(running):
    kinds = running("new").get("/object_info")
    for name, part, key in (
        ("IMTalkerSampleMotion", "required", "control_end"),
        ("IMTalkerFaceCrop", "optional", "box_order"),
        ("IMTalkerRenderVideo", "required", "batch_size"),
    ):
        assert kinds[name]["input"][part][key][1]["advanced"] is True
    assert "advanced" not in kinds["IMTalkerFaceCrop"]["input"]["required"]["no_face"][1]
    assert kinds["IMTalkerTalkingHead"]["essentials_category"] == kinds["Video Slice"]["essentials_category"]


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", ["light", "dark"])
def test_each_kind_of_link_has_a_readable_colour_of_its_own(newest, newest_page: Page, palette):
    kinds = set(re.findall(r'"(IMTALKER_\w+)"', json.dumps(newest.get("/object_info"))))
    newest_page.page.evaluate("v => app.extensionManager.setting.set('Comfy.ColorPalette', v)", palette)
    newest_page.wait_until(
        lambda: (luminance(newest_page.page.evaluate(COLOURS)["node"]) > 0.5) == (palette == "light")
    )
    newest_page.wait_for_frames()
    shown = newest_page.page.evaluate(COLOURS)
    colours = {kind: shown["links"][kind] for kind in kinds}
    assert len(set(colours.values()) | {shown["links"]["IMAGE"]}) == len(kinds) + 1
    for kind, colour in colours.items():
        assert shown["slots"][kind] == shown["css"][kind] == colour
        low, high = sorted((luminance(colour), luminance(shown["node"])))
        assert (high + 0.05) / (low + 0.05) > 4, kind


@pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue"])
def test_the_sentence_of_an_error_is_shown_in_its_node_until_the_next_run(newest_page: Page, vue):
    page, kind = newest_page, "IMTalkerSaveMotion"
    graph = {
        "made up": node("MadeUpMotion", frames=5, size=32),
        "save": node(kind, motion=["made up", 0], filename_prefix="../away"),
    }
    page.load(EMPTY_GRAPH, vue)
    page.page.evaluate("graph => app.loadApiJson(graph, 'failure')", graph)
    page.show_all()
    before = page.page.evaluate(FAILURE, kind)
    page.run()
    page.wait_until(lambda: page.page.evaluate(FAILURE, kind)["shown"])
    failed = page.page.evaluate(FAILURE, kind)
    assert failed["shown"] == ["'../away' leads out of ComfyUI's folders: set filename_prefix to a name in output."]
    assert failed["height"] > before["height"]
    assert (failed["size"], failed["values"]) == (before["size"], before["values"])
    # as an undo does
    page.page.evaluate("() => app.loadGraphData(app.graph.serialize(), true, true)")
    page.wait_until(lambda: page.page.evaluate(FAILURE, kind)["shown"] == failed["shown"])
    page.page.evaluate("kind => { app.graph.nodes.find(one => one.type === kind).widgets[0].value = 'motion' }", kind)
    page.run()
    page.wait_until(lambda: not page.page.evaluate(FAILURE, kind)["shown"])
    after = page.page.evaluate(FAILURE, kind)
    assert (after["widgets"], after["height"]) == (before["widgets"], before["height"])


def test_the_sentence_of_a_refusal_is_shown_in_its_node(newest_page: Page):
    page, kind = newest_page, "IMTalkerLoadMotion"
    graph = {
        "load": node(kind, motion_file="gone.safetensors"),
        "save": node("IMTalkerSaveMotion", motion=["load", 0], filename_prefix="motion"),
    }
    page.load(EMPTY_GRAPH)
    page.page.evaluate("graph => app.loadApiJson(graph, 'refusal')", graph)
    page.show_all()
    page.page.evaluate("() => { app.queuePrompt(0, 1).catch(() => {}) }")
    page.wait_until(lambda: page.page.evaluate(FAILURE, kind)["shown"])
    assert page.page.evaluate(FAILURE, kind)["shown"] == [
        "motion_file: There is no file 'gone.safetensors' in input: choose another."
    ]
    page.page.keyboard.press("Escape")
    page.errors.clear()  # the page logs the refusal
