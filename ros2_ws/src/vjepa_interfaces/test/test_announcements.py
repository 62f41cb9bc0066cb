"""The period of announcements, which a file of profiles may set."""

import pytest

from vjepa_interfaces.announcements import DEFAULT_S, announcement_period_s
from vjepa_interfaces.shared_memory import PROFILES

PROFILE = """\
<profiles xmlns="http://www.eprosima.com">
  <participant profile_name="other"><rtps><builtin><discovery_config>
    <leaseAnnouncement><sec>9</sec></leaseAnnouncement>
  </discovery_config></builtin></rtps></participant>
  <participant profile_name="own" is_default_profile="true"><rtps><builtin><discovery_config>
    {}
  </discovery_config></builtin></rtps></participant>
</profiles>
"""


@pytest.fixture(autouse=True)
def _no_profiles(monkeypatch):
    for name in PROFILES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        (
            PROFILE.format("<leaseAnnouncement><sec> 1 </sec><nanosec>250000000</nanosec></leaseAnnouncement>"),
            1.25,
        ),
        (PROFILE.format("<leaseAnnouncement><sec>2</sec></leaseAnnouncement>"), 2.0),
        (PROFILE.format("<leaseAnnouncement><sec>DURATION_INFINITY</sec></leaseAnnouncement>"), DEFAULT_S),
        (PROFILE.format(""), DEFAULT_S),
        ("not XML", DEFAULT_S),
        (None, DEFAULT_S),
    ],
)
def test_the_period_is_that_of_the_default_profile_or_fast_dds_own(name, text, expected_s, monkeypatch, tmp_path):
    file = tmp_path / "profiles.xml"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv(name, str(file))
    assert announcement_period_s() == expected_s


def test_without_a_file_of_profiles_the_period_is_fast_dds_own():
    assert announcement_period_s() == DEFAULT_S
