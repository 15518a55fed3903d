"""Checkpoints and data sets by URL: in a folder of this machine, and on an S3 server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.failures import INFRASTRUCTURE, failure_of
from orchestrator.storage import (
    StorageError,
    Store,
    absolute,
    check_writable,
    joined,
    local_checkpoint,
    local_data,
    missing_data,
    node_folder,
    store,
)
from tests.orchestrator.runs import differences, ended, wait_for, workplace
from tests.orchestrator.s3_server import S3Server, s3_server
from tests.trainer.fake_datasets import fake_cifar100, fake_folder, put_spec
from trainer.config import TrainConfig
from trainer.data import read_dataset
from trainer.datasets import DataError
from trainer.results import EpochResult

SMALL = {"dataset": "digits", "width": 2, "subset": 2, "batch_size": 20, "precision": "float32"}


@dataclass
class Place:
    """A folder at a URL, as seen from outside."""

    url: str
    files: Callable[[], dict[str, bytes]]

    def names(self) -> list[str]:
        return sorted(self.files())


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    with s3_server() as server:
        yield server


@pytest.fixture
def s3_place(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket = s3.new_bucket()
    return Place(f"s3://{bucket}/some/where", lambda: s3.files(bucket, "some/where/"))


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "s3":
        return request.getfixturevalue("s3_place")
    folder = tmp_path / "some where"
    return Place(f"file://{folder}", lambda: read_files(folder))


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this node, and no waiting between two tries."""
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "node"))
    monkeypatch.setattr(store, "PAUSES", (0.0, 0.0))
    return tmp_path / "node"


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def upload(folder: Path, url: str) -> None:
    """Put a folder where a person would have put the data sets."""
    store = Store(url)
    for name in read_files(folder):
        store.put(folder / name, name)


# Locations


def test_urls_stay_and_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("s3://bucket/folder/") == "s3://bucket/folder"
    assert absolute(Path("data")) == absolute("data") == str(tmp_path / "data")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert absolute("link/data") == str(tmp_path / "link" / "data")
    assert absolute("link/../data") == str(tmp_path / "far" / "data")
    assert joined("s3://bucket/folder/", "x.pt") == "s3://bucket/folder/x.pt"
    assert joined("/data", "x.pt") == "/data/x.pt"


# Checkpoints


def train_into(location: str, *, epochs: int, stop_after: int, methods: dict | None = None) -> list[EpochResult]:
    """Train as a worker does, on a node that has nothing yet; the results in the order of their reports."""
    import torch

    from trainer.checkpoint import read_checkpoint
    from trainer.train import train

    # On a machine that others use as well, more threads only wait for each other.
    torch.set_num_threads(1)
    results: list[EpochResult] = []
    with local_checkpoint(location) as (path, put_back):

        def report(result: EpochResult) -> None:
            put_back()
            results.append(result)
            held = read_checkpoint(fetched(location, path.with_name("seen")))["results"]
            assert len(held) > result.epoch, "an epoch is reported that the storage does not have"

        config = TrainConfig(**SMALL, epochs=epochs, methods=methods or {})
        train(config, report, checkpoint=path, stop_after=stop_after)
        path.with_name("seen").unlink()
        put_back()
    return results


def fetched(location: str, target: Path) -> Path:
    url, _, name = location.rpartition("/")
    assert Store(url).get(name, target)
    return target


def learned(results: list[EpochResult]) -> list[tuple]:
    return [(result.epoch, result.losses, result.evaluations) for result in results]


# A teacher is one file more, which storage of either kind keeps (see the next test).
@pytest.mark.parametrize(
    ("place", "methods"), [("file", {}), ("s3", {"tfkd": {}})], ids=["file-baseline", "s3-teacher"], indirect=["place"]
)
def test_a_trial_goes_on_from_storage_as_if_nothing_had_happened(
    place: Place, node: Path, tmp_path: Path, methods: dict
) -> None:
    straight = train_into(f"file://{tmp_path}/straight/trial.pt", epochs=3, stop_after=3, methods=methods)
    url = joined(place.url, "trial.pt")
    first = train_into(url, epochs=3, stop_after=2, methods=methods)
    assert [result.epoch for result in first] == [0, 1]
    # Nothing stays on the node, so the next one is as good as another machine.
    assert read_files(node) == {}
    second = train_into(url, epochs=3, stop_after=3, methods=methods)
    assert [result.restored for result in second] == [True, True, False]
    assert learned(second) == learned(straight)
    assert place.names() == ["trial.pt"]


def test_storage_holds_what_the_trainer_keeps(place: Place) -> None:
    url = joined(place.url, "trial.pt")
    with local_checkpoint(url) as (path, put_back):
        assert list(path.parent.iterdir()) == []
        beside = path.with_name("trial.pt.previous")
        path.with_name("trial.pt.teacher").write_bytes(b"teacher")
        put_back()
        assert place.files() == {"trial.pt.teacher": b"teacher"}
        path.write_bytes(b"one")
        put_back()
        path.with_name("trial.pt.123.writing").write_bytes(b"half")
        for number in (b"two", b"three"):
            path.replace(beside)
            path.write_bytes(number)
            put_back()
        assert place.files() == {"trial.pt": b"three", "trial.pt.previous": b"two", "trial.pt.teacher": b"teacher"}
    with local_checkpoint(url) as (path, put_back):
        assert read_files(path.parent) == place.files()
        path.replace(path.with_name("trial.pt.refused"))
        path.write_bytes(b"four")
        path.with_name("trial.pt.previous").unlink()
        path.with_name("trial.pt.teacher").unlink()
        put_back()
    assert place.files() == {"trial.pt": b"four", "trial.pt.refused": b"three"}


def test_each_content_is_sent_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    put = Store.put
    monkeypatch.setattr(Store, "put", lambda self, source, name: (sent.append(name), put(self, source, name)))
    with local_checkpoint(joined(place.url, "trial.pt")) as (path, put_back):
        for number in range(3):
            if path.exists():
                path.replace(path.with_name("trial.pt.previous"))
            path.write_bytes(b"%d" % number)
            put_back()
            put_back()
    assert sent == ["trial.pt"] * 3
    assert place.files() == {"trial.pt": b"2", "trial.pt.previous": b"1"}


def test_an_upload_that_breaks_off_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"

    def break_off(read, written, length) -> None:
        written.write(read.read(2))
        raise OSError("the line is dead")

    with local_checkpoint(f"file://{folder}/trial.pt") as (path, put_back):
        path.write_bytes(b"one")
        put_back()
        path.replace(path.with_name("trial.pt.previous"))
        path.write_bytes(b"two")
        monkeypatch.setattr(store.shutil, "copyfileobj", break_off)
        with pytest.raises(StorageError, match="the line is dead"):
            put_back()
        assert read_files(folder)["trial.pt"] == b"one"
        monkeypatch.undo()
        # What was not sent is sent the next time.
        put_back()
    assert read_files(folder) == {"trial.pt": b"two", "trial.pt.previous": b"one"}


def test_a_failure_that_passes_is_not_noticed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Flaky:
        def __init__(self, files) -> None:
            self.files, self.asked = files, 0

        def __getattr__(self, name: str):
            self.asked += 1
            if self.asked % 3:
                raise ConnectionResetError("try again")
            return getattr(self.files, name)

    prepared = Store.__init__

    def flaky(self: Store, url: str, pauses: tuple[float, ...] | None = None) -> None:
        prepared(self, url, pauses)
        self.files = Flaky(self.files)

    monkeypatch.setattr(Store, "__init__", flaky)
    for content in (b"one", b"two"):
        with local_checkpoint(joined(place.url, "trial.pt")) as (path, put_back):
            assert content == b"one" or path.read_bytes() == b"one"
            path.write_bytes(content)
            put_back()
    assert place.files() == {"trial.pt": b"two"}


def test_what_a_killed_process_left_on_the_node_is_removed(node: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom orchestrator.storage.staging import local_checkpoint\n"
        f"with local_checkpoint('file://{tmp_path}/there/a.pt') as (path, put_back):\n"
        "    path.write_bytes(b'much')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert b"much" in read_files(node).values()
    with local_checkpoint(f"file://{tmp_path}/there/b.pt") as (path, _):
        path.write_bytes(b"mine")
        # Two live side by side.
        with local_checkpoint(f"file://{tmp_path}/there/c.pt"):
            assert sorted(content for content in read_files(node).values() if content) == [b"mine"]
    assert read_files(node) == {}


def test_a_path_is_used_as_it_is(tmp_path: Path, node: Path) -> None:
    with local_checkpoint(str(tmp_path / "trial.pt")) as (path, put_back):
        assert path == tmp_path / "trial.pt"
        put_back()
    assert not node.exists()


# What cannot be used


def test_storage_that_works_is_left_as_it_was(place: Place) -> None:
    check_writable(place.url)
    assert place.files() == {}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://x", r"memory://x: memory:// is not supported; give a path, or s3://"),
        ("sftp://host/x", r"sftp:// is not supported"),
        ("s3//x", None),
    ],
)
def test_other_urls_are_refused(url: str, message: str | None) -> None:
    if message is None:
        assert not store.is_url(url)
        return
    with pytest.raises(StorageError, match=message):
        check_writable(url)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StorageError, match=r"gs://bucket: a package is missing here; run: pip install '.*\[gcs\]'"):
        check_writable("gs://bucket")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/x: the storage failed \((NotADirectory|FileExists)Error"):
        check_writable(f"file://{tmp_path}/file/x")


def test_storage_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    answer = threading.Event()
    monkeypatch.setattr(store, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(Store, "get", lambda *_: answer.wait(30))
    with pytest.raises(StorageError, match=r"did not answer within 0.05 s; check the URL and the network"):
        check_writable(f"file://{tmp_path}")
    answer.set()


def test_a_missing_bucket_is_told(s3_place: Place) -> None:
    with pytest.raises(StorageError, match=r"s3://nowhere/x: there is no such bucket or folder \(.*\); create it"):
        check_writable("s3://nowhere/x")


@pytest.fixture
def fresh_s3(s3_place: Place) -> Iterator[None]:
    """Forget the clients of earlier tests, which would go on with what they know."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def test_missing_credentials_are_told(
    s3_place: Place, fresh_s3: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StorageError, match=r"no credentials were found \(.*\); set them in the environment"):
        check_writable(s3_place.url)


def test_a_server_that_is_gone_is_told(s3_place: Place, fresh_s3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(store, "CHECK_SECONDS", 10.0)
    with pytest.raises(StorageError, match=r"s3://.*/some/where: the storage (failed|did not answer)"):
        check_writable(s3_place.url)


def test_failing_storage_is_the_machines_fault() -> None:
    assert failure_of(StorageError("s3://x: the storage failed")).error_class == INFRASTRUCTURE


def test_the_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.delenv("ORCHESTRATE_CACHE")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert node_folder() == tmp_path / f"orchestrate-{os.getuid()}"
    assert node_folder().stat().st_mode & 0o077 == 0
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    (tmp_path / f"orchestrate-{own + 1}").mkdir()
    with pytest.raises(StorageError, match="belongs to another user; set ORCHESTRATE_CACHE"):
        node_folder()


# Data sets


@pytest.fixture
def lines() -> list[str]:
    return []


def test_files_are_fetched_once_and_compared(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    fake_cifar100(tmp_path / "published", monkeypatch)
    upload(tmp_path / "published", place.url)
    assert missing_data("cifar100", place.url) is None
    root = local_data(TrainConfig(), place.url, lines.append)
    assert read_files(root / "cifar-100-python") == read_files(tmp_path / "published/cifar-100-python")
    assert [line for line in lines if "fetching" in line] == [
        f"cifar100: fetching {place.url}/cifar-100-python/{name}" for name in ("train", "test")
    ]
    assert local_data(TrainConfig(), place.url, pytest.fail) == root
    # Another place is another data set.
    with pytest.raises(DataError, match="is missing"):
        local_data(TrainConfig(), joined(place.url, "other"), lines.append)


def test_a_folder_is_fetched_whole(place: Place, tmp_path: Path, lines: list[str]) -> None:
    fake_folder(tmp_path / "published/birds")
    upload(tmp_path / "published", place.url)
    config = TrainConfig(dataset="folder:birds", subset=1)
    assert missing_data("folder:birds", place.url) is None
    root = local_data(config, place.url, lines.append)
    assert read_files(root / "birds") == read_files(tmp_path / "published/birds")
    assert lines[1:] == ["folder:birds: 12 of 12 files", f"folder:birds: ready in {root}"]
    assert local_data(config, place.url, pytest.fail) == root


def test_a_file_of_arrays_is_fetched_and_read(place: Place, tmp_path: Path, lines: list[str]) -> None:
    file = tmp_path / "published/sets/blobs.npz"
    file.parent.mkdir(parents=True)
    splits = {"train": 6, "test": 3}
    images = {f"{split}_images": np.zeros((count, 8, 8, 3), np.uint8) for split, count in splits.items()}
    labels = {f"{split}_labels": np.arange(count) % 3 for split, count in splits.items()}
    np.savez(file, **images, **labels)
    name = "npz:sets/blobs.npz"
    config = TrainConfig(dataset=name)
    assert missing_data(name, place.url) == f"{place.url}/sets/blobs.npz is missing"
    with pytest.raises(DataError, match=f"^{name}: {re.escape(place.url)}/sets/blobs.npz is missing; put it there$"):
        local_data(config, place.url, lines.append)
    upload(tmp_path / "published", place.url)
    assert missing_data(name, place.url) is None
    root = local_data(config, place.url, lines.append)
    assert lines[1:] == [f"{name}: fetching {place.url}/sets/blobs.npz", f"{name}: ready in {root}"]
    assert local_data(config, place.url, pytest.fail) == root
    assert read_dataset(name, root)[0].labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_damaged_file_of_arrays_is_refused_by_its_address(tmp_path: Path, node: Path, lines: list[str]) -> None:
    (tmp_path / "cut.npz").write_bytes(b"PK cut")
    url = f"file://{tmp_path}"
    with pytest.raises(DataError, match=f"^npz:cut.npz: {url}/cut.npz cannot be read "):
        local_data(TrainConfig(dataset="npz:cut.npz"), url, lines.append)
    assert not list(node.rglob("*.npz"))


def test_what_is_missing_is_told_before_anything_starts(place: Place, lines: list[str]) -> None:
    assert missing_data("cifar100", place.url) == f"{place.url}/cifar-100-python/train is missing"
    assert missing_data("folder:birds", place.url) == f"{place.url}/birds is missing"
    assert missing_data("digits", place.url) is None
    with pytest.raises(DataError, match="birds is missing or empty; put it there"):
        local_data(TrainConfig(dataset="folder:birds", subset=1), place.url, lines.append)
    assert local_data(TrainConfig(dataset="digits"), place.url, pytest.fail)


def test_damaged_files_are_refused(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: Path, lines: list[str]
) -> None:
    fake_cifar100(tmp_path / "published", monkeypatch)
    (tmp_path / "published/cifar-100-python/test").write_bytes(b"cut")
    upload(tmp_path / "published", place.url)
    with pytest.raises(DataError, match=r"cifar-100-python/test is damaged \(its MD5 is not .*\); replace it"):
        local_data(TrainConfig(), place.url, lines.append)
    assert read_files(node) in ({}, {name: b"" for name in read_files(node) if name.endswith(".lock")})


def test_a_fetch_that_breaks_off_never_looks_whole(
    tmp_path: Path, node: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    fake_folder(tmp_path / "published/birds")
    config, url = TrainConfig(dataset="folder:birds", subset=1), f"file://{tmp_path}/published"
    monkeypatch.setattr(store, "BATCH", 5)

    def stop(line: str) -> None:
        if "5 of 12" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local_data(config, url, stop)
    assert not [path for path in node.rglob("birds") if path.is_dir()]
    # Killed, a process tidies up nothing.
    fake_folder(next(node.rglob(".download")) / "folder:birds/birds/left")
    root = local_data(config, url, lines.append)
    assert read_files(root / "birds") == read_files(tmp_path / "published/birds")


FETCH = """
import sys
from orchestrator.storage import local_data
from trainer.config import TrainConfig
from trainer.data import read_dataset
sys.stdin.readline()
local_data(TrainConfig(dataset="folder:birds", subset=1), sys.argv[1], print)
"""


def test_of_several_processes_of_a_node_one_fetches(tmp_path: Path) -> None:
    fake_folder(tmp_path / "published/birds")
    command = [sys.executable, "-c", FETCH, f"file://{tmp_path}/published"]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sum("fetching" in text and "ready in" in text for text in outputs) == 1


def test_names_that_lead_out_of_the_folder_are_not_followed(s3: S3Server, s3_place: Place, tmp_path: Path) -> None:
    bucket = s3_place.url.split("/")[2]
    s3.put(bucket, "some/where/birds/../../evil", b"x")
    s3.put(bucket, "some/where/birds/good", b"y")
    assert Store(s3_place.url).get_all("birds", tmp_path / "target/birds", print) == 1
    assert read_files(tmp_path / "target") == {"birds/good": b"y"}


def test_a_node_without_the_data_gets_it_from_the_publisher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    fake_cifar100(tmp_path / "here", monkeypatch)
    # What is there is not read before it is needed.
    assert local_data(TrainConfig(), str(tmp_path / "here"), pytest.fail) == tmp_path / "here"
    from trainer.datasets import dataset_spec
    from trainer.spec import Archive

    archive = Archive("http://127.0.0.1:9/cifar.tar.gz", "0" * 32)
    put_spec(monkeypatch, "cifar100", replace(dataset_spec("cifar100"), archive=archive))
    with pytest.raises(DataError, match=r"could not be downloaded .*; download http://127.0.0.1:9/cifar.tar.gz"):
        local_data(TrainConfig(), str(tmp_path / "there"), lines.append)
    assert any("there/cifar-100-python/train is missing" in line for line in lines)


# The whole program


def test_what_cannot_be_used_ends_a_run_before_ray_starts(
    tmp_path: Path, s3_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text(
        json.dumps({"name": "g", "grid": {"network": ["resnet18"]}, "fixed": {"dataset": "cifar100"}})
    )
    refused = {
        "s3://nowhere/x: there is no such bucket": ["--checkpoints", "s3://nowhere/x"],
        "memory://x: memory:// is not supported": ["--checkpoints", "memory://x"],
        f"cifar100: {s3_place.url}/cifar-100-python/train is missing; put it there": ["--data-root", s3_place.url],
    }
    for message, options in refused.items():
        result = CliRunner().invoke(app, ["run", "grid.yaml", *options])
        assert result.exit_code == 2, result.output
        assert f"error: {message}" in result.output
        assert "Traceback" not in result.output
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_the_doctor_looks_at_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "cifar-100-python").mkdir()
    for name in ("train", "test"):
        (tmp_path / "cifar-100-python" / name).touch()
    result = CliRunner().invoke(app, ["doctor", "--data-root", f"file://{tmp_path}"])
    assert "cifar100: there" in result.output
    assert f"cifar10: file://{tmp_path}/cifar-10-batches-py/data_batch_1 is missing" in result.output


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_grid_lives_in_a_bucket(s3: S3Server, s3_place: Place, tmp_path: Path) -> None:
    fake_folder(tmp_path / "published/birds", per_class=8)
    upload(tmp_path / "published", joined(s3_place.url, "data"))
    fixed = {"dataset": "folder:birds", "subset": None, "batch_size": 8}
    with workplace() as place:
        grid = place.grid("bucket", {"methods": [{}, {"tfkd": {}}]}, epochs=6, fixed=fixed)
        expected = place.undisturbed(grid, "--data-root", tmp_path / "published")

        options = ["--no-dashboard", "--no-canary"]
        options += ["--data-root", f"{s3_place.url}/data", "--checkpoints", f"{s3_place.url}/checkpoints"]
        node = place.folder / "node"
        environment = {**s3.environment, "ORCHESTRATE_CACHE": str(node)}
        with ended(place.start("run", grid, *options, **environment)) as run:
            assert wait_for(lambda: (place.epochs() >= 1 and place.workers()) or run.over()), run.text()
            for worker in place.workers()[:1]:
                worker.kill()
            assert wait_for(lambda: place.epochs() >= 3 or run.over()), run.text()
            run.kill()
            run.wait()
        assert wait_for(lambda: not place.workers())
        place.keep_to_one_processor()
        code, output = place.run("run", grid, *options, **environment)
        assert code == 0, output
        assert differences(place.results(), expected) == []
        assert place.doubtful() == []
        kept = [name for name in s3_place.names() if name.startswith("checkpoints/")]
        assert kept == sorted(f"checkpoints/{key}.pt" for key in expected)
        # On the node nothing is left but the data, which was fetched once.
        logs = "".join(path.read_text() for path in place.folder.glob("results-logs/**/*.log"))
        assert logs.count("folder:birds: fetching") == 1
        assert [
            name for name in read_files(node) if "/birds/" not in name and not name.endswith((".lock", ".json"))
        ] == []
        assert not (place.folder / "results-checkpoints").exists()
