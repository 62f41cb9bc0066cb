from glob import glob

from setuptools import find_packages, setup

setup(
    name="vjepa_bringup",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vjepa_bringup"]),
        ("share/vjepa_bringup", ["package.xml"]),
        ("share/vjepa_bringup/launch", glob("launch/*.launch.py")),
        ("share/vjepa_bringup/config", glob("config/*")),
        *((f"share/vjepa_bringup/{bundle}", glob(f"{bundle}/*")) for bundle in glob("models/*")),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="The V-JEPA 2 robot stack developers",
    description="Launch files, parameter files, the graph, stack manager and process supervisor.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "stack_manager = vjepa_bringup.stack_manager_node:main",
        ],
    },
)
