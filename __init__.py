"""ComfyUI's entry: the nodes in nodes/, and what the browser loads from web/."""

from comfy_api.latest import ComfyExtension, io
from typing_extensions import override

from .nodes import NODES

WEB_DIRECTORY = "./web"
__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


class IMTalkerExtension(ComfyExtension):
    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> IMTalkerExtension:
    return IMTalkerExtension()
