"""The live page as a client sees it: who may open it, what its events say, and what it does when the database goes."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import re
import socket
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.cli.live import tunnel_command
from orchestrator.cli.run import live_page
from orchestrator.database import DatabaseAway, open_database
from orchestrator.serving.state import Seen
from orchestrator.serving.watcher import Watcher
from tests.orchestrator.databases.samples import result, save
from tests.orchestrator.serving.live_server import Live, attempt_of, fill, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    fill(folder, host=socket.gethostname())
    return folder


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Live]:
    with serving(folder, "--port", "0") as started:
        yield started


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[Live]:
    """A page of its own, in whose folder no other test of this file has written."""
    fill(tmp_path, host=socket.gethostname())
    with serving(tmp_path, "--port", "0") as started:
        yield started


def test_one_line_opens_the_page(live: Live):
    (line,) = [line for line in live.output.read_text().splitlines() if not line.startswith("warning: ")]
    assert line == f"results.db: open {live.address} in a browser of this machine; Ctrl-C ends it"
    assert len(live.token) >= 32


def test_the_token_becomes_a_cookie_and_leaves_the_address(live: Live):
    answer = live.ask(f"/?token={live.token}", token=None)
    assert answer.status == 303 and answer.headers["Location"] == "/"
    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    value, *facts = rest.split("; ")
    assert value == live.token and {"HttpOnly", "SameSite=Lax", "Path=/"} == set(facts)
    # Cookies are one machine's, whatever the port: two servers must not take each other's.
    assert live.port in name
    page = live.ask(token=None, Cookie=f"{name}={value}")
    assert gzip.decompress(live.ask(Accept_Encoding="gzip").body)[:15] == page.body[:15]
    text = page.body.decode()
    assert page.status == 200 and "<!doctype html>" in text and "table1" in text
    assert live.token not in text
    assert "connect-src 'self'" in unescape(text)


@pytest.mark.parametrize("token", [None, "", "wrong", "é"])
@pytest.mark.parametrize("path", ["/", "/events", "/elsewhere"])
def test_nobody_without_the_token_gets_anything(live: Live, token: str | None, path: str):
    answer = live.ask(path, token=token)
    assert answer.status == 403
    assert answer.body == b"this page needs its token: open the address that `orchestrate watch --serve` printed\n"
    assert live.ask(f"/events?token={live.token}", token=None).status == 403
    assert live.ask("/?token=wrong").status == 403
    assert live.ask(token=None, Cookie=f"orchestrate-127-0-0-1-{live.port}=wrong").status == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9000", 200),
        ("localhost:9000", 200),
        ("localhost", 200),
        ("[::1]:9000", 200),
        ("rebound.example:8270", 403),
        ("127.0.0.1.example", 403),
        ("localhost@example", 403),
        ("", 403),
    ],
)
def test_a_page_of_another_name_cannot_be_this_one(live: Live, host: str, status: int):
    # A forwarded port may have any number; a site whose DNS answer is this address has its own name.
    assert live.ask(Host=host).status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_only_reads(live: Live, method: str):
    assert live.ask(method=method).status == 405


def test_no_other_site_may_read_frame_or_keep_it(live: Live):
    answer = live.ask(Origin="http://127.0.0.1:1")
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert answer.headers["Cache-Control"] == "no-store"
    assert live.ask("/elsewhere").status == 404


def test_its_sockets_are_on_the_loopback_interface(live: Live):
    connections = psutil.Process(live.process.pid).net_connections(kind="inet")
    listening = [each.laddr.ip for each in connections if each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)]
    assert listening and all(ipaddress.ip_address(address).is_loopback for address in listening)


def test_the_state_has_what_runs_and_what_has_failed(untouched: Live):
    _, state = untouched.events().next()
    (grid,) = state["grids"]
    assert (grid["name"], grid["done"], grid["total"], grid["running"]) == ("table1", 1, 4, 1)
    assert grid["progress"].startswith("1 of 4 trials done, 1 running, 1 pending, 1 failed; about ")
    (trial,) = grid["trials"]
    assert (trial["name"], trial["done"], trial["total"]) == ("resnet18/pskd/seed0", 1, 4)
    assert trial["progress"].startswith("1 of 4 epochs, 40.00 %, ")
    assert trial["end"] == "epoch 1/4: so far, <b>so good</b>"
    # What is no address of a page becomes no link.
    assert grid["links"] == [{"title": "Ray's dashboard", "address": "http://127.0.0.1:8265"}]
    (failure,) = state["failures"]
    assert (failure["class"], failure["trials"]) == ("out_of_memory", ["resnet18/baseline/seed1"])
    assert re.fullmatch("orchestrate run .*table1.yaml --retry-failed", failure["retry"])
    assert failure["remedy"] and failure["excerpt"].endswith("Traceback")
    assert state["problem"] is None


def test_every_viewer_hears_of_an_epoch_and_gets_a_new_page(live: Live, folder: Path):
    viewers = [live.events() for _ in range(3)]
    before = viewers[0].next()[1]["page"]
    for viewer in viewers[1:]:
        viewer.next()
    with open_database(folder / "results.db") as database:
        database.record_epoch(attempt_of(database, 2), result(1, error=33.25), "exclusive")
    for viewer in viewers:
        state = viewer.until(lambda state: state["grids"][0]["trials"][0]["done"] == 2)
        assert "33.25 %" in state["grids"][0]["trials"][0]["progress"]
    viewers[0].until(lambda state: state["page"] > before)
    assert "33.25" in live.ask().body.decode()


def test_a_browser_that_slept_gets_the_whole_state_and_no_state_twice(live: Live, folder: Path):
    # The first page that is made is news for the viewers, too.
    live.ask()
    identity, state = live.events().next()
    assert live.events(Last_Event_ID="another-7").next()[1] == state
    silent = live.events(Last_Event_ID=identity)
    assert silent.next("alive")[0] == ""
    with (folder / "results-logs").glob("*.log").__next__().open("a") as log:
        log.write("one line more\n")
    later, state = silent.next()
    assert later != identity
    assert state["grids"][0]["trials"][0]["end"].endswith("one line more")


def test_a_database_that_goes_is_said_and_read_again_when_it_is_back(live: Live, folder: Path):
    viewer = live.events()
    state = viewer.next()[1]
    page = live.ask().body
    (folder / "results.db").rename(folder / "away.db")
    gone = viewer.until(lambda state: state["problem"])
    assert "results.db" in gone["problem"] and gone["grids"] == state["grids"]
    answer = live.ask()
    assert answer.status == 200 and answer.body == page
    (folder / "away.db").rename(folder / "results.db")
    back = viewer.until(lambda state: not state["problem"])
    assert back["grids"] == state["grids"]


def test_a_run_that_ends_is_still_shown_and_ctrl_c_ends_the_server(tmp_path: Path):
    fill(tmp_path, host="elsewhere")
    with serving(tmp_path, "--port", "0", "--grid", "table1", SSH_CONNECTION="10.0.0.1 50000 10.0.0.2 22") as live:
        assert f"from your own machine, first: ssh -N -L {live.port}:127.0.0.1:{live.port} " in live.output.read_text()
        viewer = live.events()
        state = viewer.next()[1]
        # The log of another host is named and not read.
        assert state["grids"][0]["trials"][0]["end"] is None and state["grids"][0]["trials"][0]["log"]
        with open_database(tmp_path / "results.db") as database:
            attempt = attempt_of(database, 2)
            for epoch in (1, 2, 3):
                database.record_epoch(attempt, result(epoch), "exclusive")
            database.finish_attempt(attempt, "done", trial_state="done")
        state = viewer.until(lambda state: state["grids"][0]["done"] == 2)
        assert state["grids"][0]["running"] == 0 and state["grids"][0]["trials"] == []
        assert live.ask().status == 200
        assert live.press_ctrl_c() == 0
        assert "Traceback" not in live.output.read_text()


def test_a_port_in_use_is_said_and_the_usual_one_gives_way(tmp_path: Path):
    fill(tmp_path, host="elsewhere")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["watch", "--serve", "--port", str(port), "--db", str(tmp_path / "results.db")])
        assert done.exit_code == 75
        assert f"error: port {port} is in use; --port names another, and 0 takes a free one" in done.stderr
    with serving(tmp_path) as first, serving(tmp_path) as second:
        assert first.port != second.port
        assert first.token != second.token
        assert second.ask(token=first.token).status == 403


def test_an_empty_database_has_a_page(tmp_path: Path):
    with open_database(tmp_path / "results.db", create=True):
        pass
    with serving(tmp_path, "--port", "0") as live:
        assert live.ask().status == 200
        viewer = live.events()
        assert viewer.next()[1]["grids"] == []
        with open_database(tmp_path / "results.db") as database:
            save(database)
        assert viewer.until(lambda state: state["grids"])["grids"][0]["total"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--once"], "--serve and --once are two ways to watch"),
        (["--grid", "none"], "no grid named 'none' in this database"),
        (["--db", "none.db"], "none.db does not exist"),
        (["--port", "70000"], "65535"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(arguments: list[str], message: str, folder: Path):
    done = CliRunner().invoke(app, ["watch", "--serve", "--db", str(folder / "results.db"), *arguments])
    assert done.exit_code == 2 and message in done.stderr, done.output


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_database_names_the_command_that_migrates_it(version: int, tmp_path: Path):
    old = tmp_path / "old.db"
    old.write_bytes((Path(__file__).parents[1] / f"databases/v{version}.sqlite").read_bytes())
    done = CliRunner().invoke(app, ["watch", "--serve", "--db", str(old)])
    assert done.exit_code == 2 and f"orchestrate migrate --db {old}" in done.stderr


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("10.0.0.1 50000 10.0.0.2 22", r"ssh -N -L 9:127\.0\.0\.1:9 \S+@10\.0\.0\.2"),
        ("::1 50000 fe80::2 2222", r"ssh -N -L 9:127\.0\.0\.1:9 -p 2222 \S+@fe80::2"),
        ("", ""),
        ("odd", ""),
    ],
)
def test_who_came_by_ssh_is_told_how_to_reach_the_port(variable: str, command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSH_CONNECTION", variable)
    assert re.fullmatch(command, tunnel_command(9) or "")


@pytest.mark.parametrize(
    ("db", "variable", "options"),
    [
        ("results.db", None, ""),
        ("a b.db", None, " --db 'a b.db'"),
        ("results.db", "other.db", " --db results.db"),
        ("other.db", "other.db", ""),
        ("postgresql://me:secret@host/name", None, " --db 'postgresql://me:***@host/name'"),
        ("postgresql://me@host/name", None, " --db postgresql://me@host/name"),
    ],
)
def test_a_run_prints_the_command_of_its_page(
    db: str, variable: str | None, options: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("ORCHESTRATE_DB", raising=False)
    if variable:
        monkeypatch.setenv("ORCHESTRATE_DB", variable)
    assert live_page(db, "table1") == f"orchestrate watch --serve --grid table1{options}"


class Source:
    """A stand-in for a database: what is seen, how often, and an error to raise."""

    def __init__(self) -> None:
        self.looks = self.builds = self.mark = 0
        self.error: Exception | None = None

    def look(self) -> Seen:
        self.looks += 1
        if self.error:
            raise self.error
        return Seen({"grids": []}, self.mark)

    def build(self, version: int) -> str:
        self.builds += 1
        return f"page {version} of {self.mark}"


def test_nobody_looks_at_the_database_for_nobody():
    async def watched() -> None:
        source = Source()
        watcher = Watcher(source.look, source.build, every=0.01)
        task = asyncio.create_task(watcher.run())
        await asyncio.sleep(0.1)
        assert source.looks == 0
        async with watcher.viewer():
            assert await watcher.newer("", 60)
        await asyncio.sleep(0.1)
        looks = source.looks
        await asyncio.sleep(0.1)
        assert source.looks == looks > 0
        task.cancel()

    asyncio.run(watched())


def test_many_viewers_share_one_page_and_a_page_is_not_made_all_the_time():
    async def watched() -> None:
        source = Source()
        watcher = Watcher(source.look, source.build, every=3600)
        pages = await asyncio.gather(*(watcher.current_page() for _ in range(20)))
        assert set(pages) == {"page 1 of 0"} and source.builds == 1
        source.mark = 1
        # Made less than `every` ago: the new one comes later.
        assert await watcher.current_page() == "page 1 of 0" and source.builds == 1

    asyncio.run(watched())


def test_an_error_that_is_foreseen_is_shown_and_a_bug_is_not_hidden():
    async def watched() -> None:
        source = Source()
        watcher = Watcher(source.look, source.build, every=3600)
        source.error = DatabaseAway("the server is away")
        await watcher.refresh()
        assert watcher.problem == "the server is away"
        source.error = None
        await watcher.refresh()
        assert watcher.problem is None
        source.error = ZeroDivisionError("a bug")
        with pytest.raises(ZeroDivisionError):
            await watcher.refresh()

    asyncio.run(watched())


def test_a_port_without_a_page_is_refused(folder: Path):
    done = CliRunner().invoke(app, ["watch", "--port", "1", "--db", str(folder / "results.db")])
    assert done.exit_code == 2 and "add --serve" in done.stderr
