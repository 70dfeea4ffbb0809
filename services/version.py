"""The version of this software, as it was installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("mufakat-server")
except PackageNotFoundError:
    VERSION = "unknown"
