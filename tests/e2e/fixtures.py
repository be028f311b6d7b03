"""What the conftest.py of tests/e2e and tests/crash have in common."""
import pytest

from cirrus import add_stderr


@pytest.fixture
def where(tmp_path):
    return tmp_path


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        add_stderr(item, report)
