"""The shipped workflows, help pages and templates in a real browser; tests skip where there is none."""

import json
from urllib.parse import quote

import pytest
import shipped
from browser import Page, open_page
from server import PACK
from test_nodes import OURS, probe


@pytest.fixture(scope="module")
def page(server, browser):
    with open_page(browser, server) as page:
        yield page


@pytest.fixture(params=["canvas", "vue"])
def vue(request, page: Page) -> bool:
    if request.param == "vue" and not page.has_vue_nodes():
        pytest.skip("this frontend draws nodes on a canvas only")
    return request.param == "vue"


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_workflow_opens(page: Page, name, vue):
    workflow = shipped.read(name)
    page.load(workflow, vue)
    assert page.unknown_nodes() == []
    assert page.errors == []
    # Run would queue what the file says
    found, wanted = page.prompt(), shipped.to_api(workflow)
    assert found.keys() == wanted.keys()
    for number, node in wanted.items():
        assert found[number]["class_type"] == node["class_type"]
        assert found[number]["inputs"].items() >= node["inputs"].items(), node["class_type"]
    if vue:
        page.show_all()
        titled = {node["title"] for node in workflow["nodes"] if "title" in node}
        page.wait_until(lambda: len(page.drawn_titles()) == len(workflow["nodes"]))
        assert titled <= set(page.drawn_titles())


def test_a_run_from_the_page_ends_with_a_video_to_play(page: Page, server, vue):
    workflow = shipped.shortened(shipped.read("02 Talk step by step"))
    next(node for node in workflow["nodes"] if node["type"] == "IMTalkerSampleMotion")["widgets_values"][0] = int(vue)
    page.load(workflow, vue)
    page.show_all()
    (file,) = page.run()
    assert probe(server, file)["frames"] == 10
    assert page.errors == []
    if vue and page.version().startswith("1.27."):
        return  # its first Vue nodes show no images or videos, of any pack
    shown = page.plays_video()
    assert shown["size"] == [128, 128]
    assert shown["seconds"] == pytest.approx(0.4, abs=0.1)


def test_help_pages_are_found_by_the_page(page: Page, server):
    nodes = [name for name, kind in server.get("/object_info").items() if kind["python_module"] == OURS]
    for name in nodes:
        for path in (f"{name}/zh.md", f"{name}.md"):
            assert page.page.request.get(f"http://{server.address}/extensions/{PACK}/docs/{path}").status == 200


def test_help_opens_beside_the_graph(page: Page):
    page.load(shipped.read("01 First try"))
    assert "Troubleshooting" in page.open_help("IMTalkerTalkingHead")
    page.page.wait_for_function(
        "() => document.querySelector('.node-help-content img[src$=\"node.jpg\"]')?.naturalWidth > 200", timeout=20000
    )
    assert page.errors == []


def test_workflows_are_listed_as_templates_with_pictures(page: Page, server):
    assert sorted(server.get("/workflow_templates")[PACK]) == shipped.NAMES
    for name in shipped.NAMES:
        address = f"http://{server.address}/api/workflow_templates/{PACK}/{quote(name)}"
        assert json.loads(page.page.request.get(f"{address}.json").text()) == shipped.read(name)
        assert page.page.request.get(f"{address}.jpg").headers["content-type"] == "image/jpeg"


# Encode Motion grows over the node below it there
GROWS = "12 Head from a video, lips from speech"


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_workflow_runs_in_the_newest_page_and_covers_nothing(newest_page: Page, newest, name):
    page = newest_page
    page.load(shipped.shortened(shipped.read(name)), vue=True)
    page.show_all()
    (file,) = page.run(120)
    assert probe(newest, file)["frames"] > 1
    page.plays_video()
    assert page.overlaps() == [] or name == GROWS
    assert page.errors == []
