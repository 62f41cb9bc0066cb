from setuptools import find_packages, setup

setup(
    name="vjepa_bags",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vjepa_bags"]),
        ("share/vjepa_bags", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="The V-JEPA 2 robot stack developers",
    description="rosbag2 bags: written, read, checked and repaired; the recorder node.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "episode_recorder = vjepa_bags.recorder_node:main",
        ],
    },
)
