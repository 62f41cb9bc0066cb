"""Looks and renderings by one name each."""

import cv2
import numpy as np
import pytest

from sim_bridge.camera_view import RENDERINGS
from sim_bridge.looks import NAMES
from vjepa_bringup.graph import refuse_unknown_names
from vjepa_interfaces.errors import VjepaError
from vjepa_training.evaluation.appearance import Appearance, appearances, check_backgrounds, in_words, provenance


@pytest.mark.parametrize(
    ("text", "render", "expected"),
    [
        ("nominal", None, ("nominal", "nominal", "dm_control")),
        ("nominal", "exact", ("nominal", "nominal", "exact")),
        ("plain", None, ("plain", "nominal", "plain")),
        ("exact", "plain", ("exact", "nominal", "exact")),
        ("colour", None, ("colour:medium", "colour:medium", "dm_control")),
        ("camera:hard:moving", "plain", ("camera:hard:moving", "camera:hard:moving", "plain")),
    ],
)
def test_a_name_means_a_look_on_the_rendering_or_a_rendering_under_the_nominal_look(text, render, expected):
    assert Appearance.of(text, render) == Appearance(*expected)


@pytest.mark.parametrize(
    ("texts", "render", "message"),
    [
        (["colours"], None, f"unknown look 'colours'; valid are: {', '.join(sorted((*NAMES, *RENDERINGS)))}"),
        (["colour:extreme"], None, "expected a name, then a level of easy, medium, hard"),
        (["colour"], "pretty", "unknown render 'pretty'; valid are: dm_control, exact, plain"),
        (["colour", "light", "colour:medium"], None, "the look colour:medium is named twice; name each look once"),
    ],
)
def test_what_is_neither_is_refused(texts, render, message):
    with pytest.raises(VjepaError, match=message):
        appearances(texts, render)


def test_backgrounds_are_for_looks_that_show_them(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    check_backgrounds(str(tmp_path), ["colour:easy", "all:hard"])
    with pytest.raises(VjepaError, match=r"the look colour shows none; .* background or all"):
        check_backgrounds(str(tmp_path), ["colour:easy"])
    with pytest.raises(VjepaError, match="has no backgrounds; expected a folder with pictures"):
        check_backgrounds(str(tmp_path / "nowhere"), ["all"])


@pytest.mark.parametrize(
    ("sim", "message"),
    [
        ({"look": "fog"}, "unknown look 'fog'"),
        ({"look": 5}, "unknown look '5'"),
        ({"render": "pretty"}, "unknown render 'pretty'"),
        ({"look": "background", "backgrounds": "/nowhere"}, "/nowhere has no backgrounds"),
    ],
)
def test_parameters_with_no_such_look_are_refused_before_anything_starts(sim, message):
    with pytest.raises(VjepaError, match=message):
        refuse_unknown_names({"sim_bridge": {"task": "reacher-easy", **sim}, "vjepa_planner": {"planner": "random"}})


def test_a_result_tells_its_look_and_the_scoreboard_one_that_is_not_the_stacks_own():
    sim = {"look": "background", "render": "exact", "backgrounds": "davis"}
    assert provenance(sim) == {"look": "background:medium", "render": "exact", "backgrounds": "davis"}
    assert in_words(provenance(sim)) == "background:medium, rendered as exact, backgrounds of davis"
    assert provenance({**sim, "look": "colour"}) == {"look": "colour:medium", "render": "exact"}
    assert in_words({"look": "nominal", "render": "dm_control"}) == ""
    assert in_words({"look": "nominal", "render": "plain"}) == in_words({}) == "nominal, rendered as plain"
