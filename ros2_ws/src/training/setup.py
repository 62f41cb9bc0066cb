from glob import glob

from setuptools import find_packages, setup

setup(
    name="vjepa_training",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed", "cards/*.md"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vjepa_training"]),
        ("share/vjepa_training", ["package.xml"]),
        ("share/vjepa_training/config", glob("config/*.yaml")),
        ("share/vjepa_training/experiments", glob("experiments/*.yaml")),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="The V-JEPA 2 robot stack developers",
    description="Bags to datasets to weights to scores, offline.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [],
    },
)
