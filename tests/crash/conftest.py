import sys
import pathlib

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "e2e"))
from fixtures import pytest_runtest_makereport, where  # noqa: E402, F401
