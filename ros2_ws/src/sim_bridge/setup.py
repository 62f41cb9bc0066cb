from setuptools import find_packages, setup

setup(
    name="sim_bridge",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/sim_bridge"]),
        ("share/sim_bridge", ["package.xml"]),
        ("share/sim_bridge/urdf", ["urdf/reacher.urdf"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="The V-JEPA 2 robot stack developers",
    description="A dm_control arm behind camera, joint and command topics.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "sim_bridge = sim_bridge.sim_node:main",
            "arm_stand_in = sim_bridge.arm_stand_in_node:main",
        ],
    },
)
