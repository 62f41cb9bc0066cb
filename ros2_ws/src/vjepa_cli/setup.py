from setuptools import find_packages, setup

setup(
    name="vjepa_cli",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed", "*.md"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vjepa_cli"]),
        ("share/vjepa_cli", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="The V-JEPA 2 robot stack developers",
    description="The vjepa command line.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "vjepa = vjepa_cli.cli:main",
        ],
    },
)
