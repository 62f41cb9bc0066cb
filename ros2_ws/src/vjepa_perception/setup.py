from setuptools import find_packages, setup

setup(
    name="vjepa_perception",
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={"": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vjepa_perception"]),
        ("share/vjepa_perception", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="The V-JEPA 2 robot stack developers",
    description="Camera frames to V-JEPA 2 latents.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "camera = vjepa_perception.camera_node:main",
            "encode_time = vjepa_perception.encode_time:main",
            "vjepa_perception = vjepa_perception.perception_node:main",
        ],
    },
)
