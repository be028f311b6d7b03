import sys
import pathlib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture
def where(tmp_path):
    return tmp_path


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails says what its daemons had to say: the machine it ran on may be gone by then."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and "tmp_path" in item.funcargs:
        for path in sorted(item.funcargs["tmp_path"].glob("**/stderr.*")):
            report.sections.append((str(path), path.read_text(errors="replace")[-4000:]))
