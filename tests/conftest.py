"""What every test gets: properties are judged by their answers, not by how busy the machine is meanwhile, and the gate
tries the same examples every time; `pytest --hypothesis-profile=explore` looks for new ones.

The last lines of a run that booted firmware are rows for docs/reference/firmware.md: what was booted just now.
"""

import signal

import pytest
from hypothesis import settings

# helpers that assert: a failure there shows its values, too
pytest.register_assert_rewrite("faults", "good_client", "http_rig", "lab_bench", "persona_lan", "product", "tftp_rig")

settings.register_profile("bootwire", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("bootwire")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts what it runs in the background so, and the commands that tests interrupt would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROW = "booted"  # the property (record_property) whose value is a row
HEAD = ("| firmware | version | card | beside | path | seconds | kernel |", "|---|---|---|---|---|---|---|")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed")
    rows = sorted({str(row) for report in reports for name, row in report.user_properties if name == ROW})
    if rows:
        terminalreporter.section("booted for real")
        for row in (*HEAD, *rows):
            terminalreporter.write_line(row)
