import sys
import pathlib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "e2e"))
from cirrus import add_stderr  # noqa: E402


@pytest.fixture
def where(tmp_path):
    return tmp_path


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        add_stderr(item, report)
