import sys
import pathlib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "e2e"))


@pytest.fixture
def where(tmp_path):
    return tmp_path
