from setuptools import find_packages, setup

setup(
    name="vjepa_interfaces",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vjepa_interfaces"]),
        ("share/vjepa_interfaces", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="The V-JEPA 2 robot stack developers",
    description="The vocabulary all nodes share: topics, QoS, codecs, alignment, the managed-node base.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "effort_guard = vjepa_interfaces.effort_guard_node:main",
        ],
    },
)
