"""Parse the appearance of the simulation: look and rendering in one name, as the command line takes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sim_bridge.backgrounds import Pictures
from sim_bridge.camera_view import DM_CONTROL, PLAIN, RENDERINGS, refuse_unknown_rendering
from sim_bridge.looks import NAMES, NOMINAL, WITH_BACKGROUNDS, Look
from vjepa_interfaces.errors import VjepaError, unknown_name


@dataclass(frozen=True)
class Appearance:
    """A look and a rendering.

    Attributes:
        name: its name in tables: the look's, or the rendering's if that was requested.
        look: value of the simulation's parameter `look`.
        render: value of its parameter `render`.
    """

    name: str
    look: str
    render: str

    @classmethod
    def of(cls, text: str, render: str | None) -> "Appearance":
        """Return the meaning of `text`: a rendering with the nominal look, or a look with the rendering `render`.

        Args:
            text: one of `RENDERINGS`, or an argument of `Look.of`.
            render: one of `RENDERINGS`; None for `dm_control`.

        Raises:
            VjepaError: there is no such look, level or rendering.
        """
        if render is not None:
            refuse_unknown_rendering(render)
        if text in RENDERINGS:
            return cls(text, NOMINAL, text)
        if text.partition(":")[0] not in NAMES:
            raise unknown_name("look", text.partition(":")[0], (*NAMES, *RENDERINGS))
        look = str(Look.of(text))
        return cls(look, look, render or DM_CONTROL)


def appearances(texts: Iterable[str], render: str | None) -> list[Appearance]:
    """Return the appearance of each of `texts`, in their order, see `Appearance.of`.

    Raises:
        VjepaError: there is no such look, level or rendering, or two of them are equal.
    """
    found: dict[str, Appearance] = {}
    for text in texts:
        appearance = Appearance.of(text, render)
        if appearance.name in found:
            raise VjepaError(f"the look {appearance.name} is named twice; name each look once")
        found[appearance.name] = appearance
    return list(found.values())


def check_backgrounds(folder: str, looks: Iterable[str]) -> None:
    """Refuse a folder of backgrounds that is empty, or that no look shows.

    Args:
        folder: folder of pictures and videos.
        looks: values of the simulation's parameter `look`.

    Raises:
        VjepaError: the folder is empty, or no look shows it; the message names the folder, or the looks that show it.
    """
    Pictures(folder)
    names = [Look.of(look).name for look in looks]
    if not set(names) & set(WITH_BACKGROUNDS):
        raise VjepaError(
            f"backgrounds is {folder}, but the look {', '.join(names)} shows none; leave backgrounds out, or "
            f"choose the look {' or '.join(WITH_BACKGROUNDS)}"
        )


def provenance(sim: Mapping[str, Any]) -> dict[str, str]:
    """Return look, rendering and, if they come from a folder, backgrounds among the parameters of `sim_bridge`."""
    look = Look.of(sim["look"])
    backgrounds = sim.get("backgrounds") if look.name in WITH_BACKGROUNDS else ""
    found = {"look": str(look), "render": sim["render"]}
    return found | ({"backgrounds": backgrounds} if backgrounds else {})


def rendering_of(result: Mapping[str, Any]) -> str:
    """Return the rendering of a result; one that names none is older than the others, `plain`."""
    render: str = result.get("render", PLAIN)
    return render


def in_words(result: Mapping[str, Any]) -> str:
    """Return look and rendering of a result as the scoreboard names them; empty for the stack's own."""
    look, render = result.get("look", NOMINAL), rendering_of(result)
    if (look, render) == (NOMINAL, DM_CONTROL):
        return ""
    backgrounds = f", backgrounds of {result['backgrounds']}" if "backgrounds" in result else ""
    return f"{look}, rendered as {render}{backgrounds}"
