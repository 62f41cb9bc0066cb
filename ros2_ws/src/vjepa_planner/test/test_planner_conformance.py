"""Every planner of this package passes the conformance suite, and none can be added without it."""

import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_planner.conformance import PlannerConformance, load_for_test


class TestRandom(PlannerConformance):
    def make_planner(self):
        return load_for_test("random")

    def test_another_seed_gives_other_actions(self):
        one, observations = self.begun(seed=0)
        other, _ = self.begun(seed=1)
        assert one.plan(observations[0]).action.tolist() != other.plan(observations[0]).action.tolist()


class TestExpertP(PlannerConformance):
    def make_planner(self):
        return load_for_test("expert-p")


class TestExpert(PlannerConformance):
    def make_planner(self):
        return load_for_test("expert")


class TestExpertXY(PlannerConformance):
    def make_planner(self):
        return load_for_test("expert-xy")


class TestBc(PlannerConformance):
    joint_state = False

    @pytest.fixture(autouse=True, scope="class")
    def _bundle(self, request, tmp_path_factory):
        import torch

        from vjepa_planner.models.policy import Policy, PolicyConfig, save_policy

        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("policy")
        save_policy(folder, Policy(PolicyConfig(joint_state=self.joint_state)), "an-encoder", "# Untrained")
        request.cls.path = str(folder)

    def make_planner(self):
        return load_for_test("bc", bundle=self.path)


class TestBcWithJointState(TestBc):
    joint_state = True


class OfAWorld(PlannerConformance):
    """A planner that imagines, in an untrained world."""

    latent_shape = (3, 8)
    name = "cem"
    members, joint_state = 1, False
    options: dict = {}

    @pytest.fixture(autouse=True, scope="class")
    def _world(self, request, tmp_path_factory, make_world):
        request.cls.given = make_world(tmp_path_factory.mktemp("world"), self.members, self.joint_state)

    def make_planner(self):
        return load_for_test(self.name, **{**self.given, **self.options})


class TestCem(OfAWorld):
    pass


class TestCemWithEnsembleJointsAndPolicy(OfAWorld):
    members, joint_state = 3, True

    def make_planner(self):
        return load_for_test(self.name, **self.given, policy=self.given["dynamics"].replace("dynamics", "policy"))


class TestCemWithAGoal(OfAWorld):
    options = {"objective": "goal"}


class TestShooting(OfAWorld):
    name = "shooting"


class TestMppi(OfAWorld):
    name = "mppi"
    members = 3


class TestDreamer(OfAWorld):
    name = "dreamer"

    @pytest.fixture(autouse=True, scope="class")
    def _actor(self, request, tmp_path_factory, _world):
        from vjepa_planner.models.actor import Actor, ActorConfig, save_actor
        from vjepa_planner.models.dynamics import load_dynamics

        model, _ = load_dynamics(self.given["dynamics"])
        actor = Actor(ActorConfig(hidden=16), model.conditioning.config)
        actor.conditioning.load_state_dict(model.conditioning.state_dict())
        folder = tmp_path_factory.mktemp("actor")
        save_actor(folder, actor, "an-encoder", "# Untrained")
        request.cls.dynamics = self.given["dynamics"]
        request.cls.given = {"bundle": str(folder)}


class TestDreamerThatSaysWhatItsEnsembleThinks(TestDreamer):
    members, joint_state = 3, True

    @pytest.fixture(autouse=True, scope="class")
    def _dynamics(self, request, _actor):
        request.cls.given["dynamics"] = request.cls.dynamics

    def test_it_says_how_much_the_ensemble_disagrees(self):
        planner, observations = self.begun()
        assert planner.plan(observations[0]).disagreement > 0


class TestSac(TestDreamer):
    name = "sac"
    joint_state = True

    def test_without_a_bundle_it_says_which_option_to_set(self):
        with pytest.raises(VjepaError, match="SacPlanner has no actor; set its option 'bundle'"):
            load_for_test("sac")


CONFORMANCE = {
    "random": TestRandom,
    "expert-p": TestExpertP,
    "expert": TestExpert,
    "expert-xy": TestExpertXY,
    "bc": TestBc,
    "cem": TestCem,
    "shooting": TestShooting,
    "mppi": TestMppi,
    "dreamer": TestDreamer,
    "sac": TestSac,
}


def test_every_planner_declared_has_its_conformance_class(declared_planners):
    assert {declared.split("=")[0].strip() for declared in declared_planners} == CONFORMANCE.keys()
