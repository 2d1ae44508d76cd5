"""A build backend for one module: it makes the wheel itself, so that nothing is downloaded."""

import zipfile
from pathlib import Path

METADATA = "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: hello\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Make the wheel as PEP 517 asks for it; return its file name."""
    name = "hello-1.0-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory, name), "w") as wheel:
        wheel.write("src/hello.py", "hello.py")
        wheel.writestr("hello-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("hello-1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("hello-1.0.dist-info/RECORD", "")
    return name
