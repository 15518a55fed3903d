"""A private Ray that is asked for by Ray's own word for it."""

from __future__ import annotations

import pytest

from tests.orchestrator.runs import Workplace, ended, wait_for
from tests.orchestrator.sockets import hold_to_loopback, listening

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("options", "variables"),
    [((), {"RAY_ADDRESS": "local"}), (("--address", "local"), {})],
    ids=str,
)
def test_a_ray_of_the_own_word_for_it_listens_like_the_default(workplace: Workplace, options, variables):
    # Ray makes the key where there is none.
    home = workplace.folder / "home"
    home.mkdir()
    grid = workplace.grid("local", {"seed": [0]}, epochs=10_000)
    with ended(workplace.start("run", grid, "--no-canary", *options, HOME=str(home), **variables)) as run:
        assert wait_for(lambda: "started on" in run.text() or run.over()) and not run.over(), run.text()
        by_name = listening(workplace)
        run.press_ctrl_c()
        assert run.code() == 130, run.text()
    hold_to_loopback(by_name)
    assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    assert workplace.processes_left() == []
