from setuptools import find_packages, setup

setup(
    name="vjepa_planner",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vjepa_planner"]),
        ("share/vjepa_planner", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="The V-JEPA 2 robot stack developers",
    description="Latents to torques: planner contract, registry, planners and their node.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "vjepa_planner = vjepa_planner.planner_node:main",
        ],
        "vjepa_planner.planners": [
            "random = vjepa_planner.planners.random:RandomPlanner",
            "expert-p = vjepa_planner.planners.expert_p:ExpertPPlanner",
            "expert = vjepa_planner.planners.expert:ExpertPlanner",
            "bc = vjepa_planner.planners.bc:BcPlanner",
            "expert-xy = vjepa_planner.planners.expert_xy:ExpertXYPlanner",
            "shooting = vjepa_planner.planners.shooting:ShootingPlanner",
            "cem = vjepa_planner.planners.cem:CemPlanner",
            "mppi = vjepa_planner.planners.mppi:MppiPlanner",
            "dreamer = vjepa_planner.planners.dreamer:DreamerPlanner",
            "sac = vjepa_planner.planners.sac:SacPlanner",
        ],
    },
)
