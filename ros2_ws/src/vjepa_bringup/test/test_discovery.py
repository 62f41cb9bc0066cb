"""Who may reach a stack is a matter of environment variables; tests/test_network.py looks at the sockets."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from vjepa_bringup import discovery
from vjepa_bringup.discovery import DISCOVERIES, LOCAL, discovery_environment, discovery_of_shell
from vjepa_cli.commands import graph as graph_commands
from vjepa_interfaces.announcements import DEFAULT_S, announcement_period_s
from vjepa_interfaces.environment import distribution_of_ros, environment_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.shared_memory import PROFILES, profile_variables

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
STRONGER = ("ROS_LOCALHOST_ONLY", "ROS_DISCOVERY_SERVER", "FASTDDS_ENVIRONMENT_FILE")
OPEN = sorted(set(DISCOVERIES) - {LOCAL})


@pytest.fixture(autouse=True)
def _plain_shell(monkeypatch):
    for name in (*PROFILES, RANGE, *STRONGER):
        monkeypatch.delenv(name, raising=False)


def profile(choice: str) -> Path:
    """The file of profiles that a choice gives both versions of Fast DDS."""
    (file,) = {discovery_environment(choice)[name] for name in profile_variables(distribution_of_ros())}
    return Path(file)


def test_this_host_alone_is_a_matter_of_the_profile_since_ros_would_open_sockets_of_its_own():
    variables = discovery_environment(LOCAL)
    assert variables[RANGE] == "SYSTEM_DEFAULT"
    assert profile(LOCAL).name == "fastdds_localhost.xml"


@pytest.mark.parametrize("choice", DISCOVERIES)
def test_the_nodes_of_a_stack_announce_themselves_more_often_than_fast_dds_does_by_itself(choice):
    assert announcement_period_s() == DEFAULT_S
    with environment_of(discovery_environment(choice)):
        assert announcement_period_s() == 0.5


@pytest.mark.parametrize("choice", DISCOVERIES)
def test_a_file_of_profiles_in_the_working_folder_does_not_count(choice):
    assert discovery_environment(choice)["SKIP_DEFAULT_XML_FILE"] == "1"


@pytest.mark.parametrize("choice", OPEN)
def test_an_open_stack_follows_ros_and_has_the_profile_without_limits(choice):
    assert discovery_environment(choice)[RANGE] == DISCOVERIES[choice]
    assert profile(choice).name == "fastdds.xml"


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("choice", DISCOVERIES)
def test_a_profile_of_the_users_stays_and_ros_is_told_the_range(name, choice, monkeypatch):
    monkeypatch.setenv(name, "/of/mine.xml")
    assert discovery_environment(choice) == {RANGE: DISCOVERIES[choice]}


@pytest.mark.parametrize("outer", DISCOVERIES)
def test_what_a_stack_starts_is_as_closed_as_if_it_had_been_started_alone(outer):
    expected = {choice: discovery_environment(choice) for choice in DISCOVERIES}
    with environment_of(discovery_environment(outer)):
        assert {choice: discovery_environment(choice) for choice in DISCOVERIES} == expected


@pytest.mark.parametrize("choice", DISCOVERIES)
def test_another_middleware_is_told_the_range_alone(choice, monkeypatch):
    monkeypatch.setattr(discovery, "_is_fast_dds", lambda: False)
    assert discovery_environment(choice) == {RANGE: DISCOVERIES[choice]}


@pytest.mark.parametrize("name", STRONGER)
def test_a_variable_that_would_open_more_counts_for_an_open_stack_alone(name, monkeypatch):
    assert name not in discovery_environment(LOCAL)
    monkeypatch.setenv(name, "1")
    assert discovery_environment(LOCAL)[name] == ""
    assert not [choice for choice in OPEN if name in discovery_environment(choice)]


def test_a_missing_profile_is_an_error_since_fast_dds_would_go_on_without(monkeypatch, tmp_path):
    monkeypatch.setattr(discovery, "share_folder", lambda _: tmp_path)
    for choice in DISCOVERIES:
        with pytest.raises(VjepaError, match=r"no profile of Fast DDS at .*xml; build the workspace with: ./vjepa"):
            discovery_environment(choice)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("", LOCAL), ("LOCALHOST", LOCAL), ("SUBNET", "subnet"), ("SYSTEM_DEFAULT", "system_default"), ("OFF", LOCAL)],
)
def test_a_stack_that_was_not_started_here_is_met_as_the_shell_has_it(asked, expected, monkeypatch):
    monkeypatch.setenv(RANGE, asked)
    monkeypatch.setattr(graph_commands, "running_stacks", list)
    assert discovery_of_shell() == expected
    stack = graph_commands._find_stack(graph_commands.OfStack(domain=7, namespace="left"))
    assert (stack.domain, stack.namespace, stack.discovery) == (7, "left", expected)


def test_both_profiles_have_the_same_memory_and_announcements():
    def values(choice: str, *names: str) -> list[str]:
        tree = ElementTree.parse(profile(choice)).getroot()
        return [element.text for name in names for element in tree.iter(f"{{http://www.eprosima.com}}{name}")]

    names = ("segment_size", "sec", "nanosec")
    assert values(LOCAL, *names) == values("subnet", *names) != []
    assert values(LOCAL, "receiveBufferSize") == values("subnet", "listenSocketBufferSize") != []
