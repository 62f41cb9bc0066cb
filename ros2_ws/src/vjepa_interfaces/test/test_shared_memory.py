"""Profiles of Fast DDS lose what they have of shared memory, and nothing else."""

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.shared_memory import PROFILES, no_shared_memory, profile_variables

OWN = Path(__file__).resolve().parents[2] / "vjepa_bringup/config"
IN_DDS = """<dds xmlns="http://www.eprosima.com"><profiles><transport_descriptors>
<transport_descriptor><transport_id>a</transport_id><type> SHM </type></transport_descriptor>
<transport_descriptor><transport_id>b</transport_id><type>UDPv4</type></transport_descriptor></transport_descriptors>
<participant profile_name="p"><rtps><userTransports><transport_id>a</transport_id><transport_id>b</transport_id>
</userTransports></rtps></participant></profiles></dds>"""
WITHOUT_NAMESPACE = IN_DDS.replace(' xmlns="http://www.eprosima.com"', "")


def texts(profiles: str) -> list[tuple[str, str]]:
    return [(e.tag, (e.text or "").strip()) for e in ElementTree.fromstring(profiles).iter() if (e.text or "").strip()]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("FASTDDS_BUILTIN_TRANSPORTS", *PROFILES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("profiles", [IN_DDS, WITHOUT_NAMESPACE, *(f.read_text() for f in sorted(OWN.glob("*.xml")))])
def test_a_file_of_profiles_is_replaced_by_one_without_shared_memory(tmp_path, monkeypatch, name, profiles):
    (tmp_path / "mine.xml").write_text(profiles)
    monkeypatch.setenv(name, str(tmp_path / "mine.xml"))
    before = dict(os.environ)
    with no_shared_memory():
        assert os.environ["FASTDDS_BUILTIN_TRANSPORTS"] == "UDPv4"
        copy = Path(os.environ[name])
        found = texts(copy.read_text())
    of_shared_memory = {"SHM", "a", "frames", "16777216"}
    assert found == [each for each in texts(profiles) if each[1] not in of_shared_memory]
    assert (tmp_path / "mine.xml").read_text() == profiles
    assert os.environ == before
    assert not copy.parent.exists()


def test_each_distribution_gets_the_variable_that_its_fast_dds_reads():
    assert profile_variables("jazzy") == ("FASTRTPS_DEFAULT_PROFILES_FILE",)
    assert profile_variables("kilted") == profile_variables("lyrical") == ("FASTDDS_DEFAULT_PROFILES_FILE",)
    assert profile_variables("") == PROFILES


def test_without_a_file_of_profiles_none_is_given():
    with no_shared_memory():
        assert os.environ["FASTDDS_BUILTIN_TRANSPORTS"] == "UDPv4"
        assert not set(PROFILES) & set(os.environ)
    assert "FASTDDS_BUILTIN_TRANSPORTS" not in os.environ


@pytest.mark.parametrize("content", [None, "<dds>"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, content):
    if content:
        (tmp_path / "mine.xml").write_text(content)
    monkeypatch.setenv(PROFILES[0], str(tmp_path / "mine.xml"))
    with pytest.raises(VjepaError, match=r"no profiles of Fast DDS can be read from .*mine\.xml"), no_shared_memory():
        pass
    assert os.environ[PROFILES[0]] == str(tmp_path / "mine.xml")
