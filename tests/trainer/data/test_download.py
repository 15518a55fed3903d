"""Fetching and checking files, against a server on this machine."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.fake_datasets import fake_folder, md5, put_spec, write_image
from trainer.config import TrainConfig
from trainer.data import download, prepare, what_is_missing
from trainer.data.download import read_verified
from trainer.datasets import DataError, dataset_spec
from trainer.spec import Archive, DataFile


class Server(ThreadingHTTPServer):
    """Serves `files` and notes requests. Only `cut` bytes of a file arrive; the others wait for `go_on`, if given."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requested: list[str] = []
        self.cut: int | None = None
        self.first_part_sent = threading.Event()
        self.go_on: threading.Event | None = None

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        self.server.requested.append(name)
        if name not in self.server.files:
            self.send_error(404)
            return
        contents = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(contents)))
        self.end_headers()
        cut = len(contents) if self.server.cut is None else self.server.cut
        self.wfile.write(contents[:cut])
        self.wfile.flush()
        self.server.first_part_sent.set()
        if self.server.go_on:
            self.server.go_on.wait(30)
            self.wfile.write(contents[cut:])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        if running.go_on:
            running.go_on.set()
        running.shutdown()
        thread.join()


FILES = {"cifar-100-python/train": b"training images " * 100, "cifar-100-python/test": b"test images"}


@pytest.fixture
def published(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with an archive that has the files of CIFAR-100, and one more."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, contents in (FILES | {"cifar-100-python/meta": b"names"}).items():
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    server.files["cifar.tar.gz"] = packed.getvalue()
    files = tuple(DataFile(name, hashlib.md5(contents).hexdigest()) for name, contents in FILES.items())
    source = Archive(server.url("cifar.tar.gz"), hashlib.md5(packed.getvalue()).hexdigest())
    put_spec(monkeypatch, "cifar100", replace(dataset_spec("cifar100"), files=files, archive=source))
    return server


CIFAR100 = TrainConfig(dataset="cifar100")


def assert_complete(root: Path) -> None:
    for name, contents in FILES.items():
        assert (root / name).read_bytes() == contents
    assert_nothing_half_done(root)


def assert_nothing_half_done(root: Path) -> None:
    left = [path.name for path in (root / ".download").iterdir()]
    assert left == ["cifar100.lock"]


def test_what_is_missing_is_downloaded_once_with_progress(tmp_path: Path, published: Server) -> None:
    lines: list[str] = []
    root = tmp_path / "not" / "yet"
    prepare(CIFAR100, root, progress=lines.append)
    assert_complete(root)
    assert lines[0] == f"cifar100: {root}/cifar-100-python/train is missing"
    assert lines[1] == f"cifar100: downloading {published.url('cifar.tar.gz')} (0 MB)"
    assert lines[-1] == f"cifar100: ready in {root}"
    count = len(lines)
    prepare(CIFAR100, root, progress=lines.append)
    assert len(lines) == count
    assert published.requested == ["cifar.tar.gz"]


def test_a_python_without_filters_of_archives_unpacks_them(
    tmp_path: Path, published: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tarfile.TarFile.extractall

    def older(self: tarfile.TarFile, path: Path, members: None = None, *, numeric_owner: bool = False) -> None:
        original(self, path, members, numeric_owner=numeric_owner)

    # As in 3.11.2, which Debian 12 has.
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.setattr(tarfile.TarFile, "extractall", older)
    prepare(CIFAR100, tmp_path)
    assert_complete(tmp_path)


def test_progress_is_told_for_every_tenth(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CHUNK", 100_000)
    server.files["big"] = bytes(2_000_000)
    lines: list[str] = []
    assert sum(map(len, download._chunks("cifar100", server.url("big"), lines.append))) == 2_000_000
    assert lines[0].endswith("/big (2 MB)")
    assert len(lines) == 11
    assert lines[-1] == "cifar100: 2 of 2 MB"


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"damaged")])
def test_a_missing_or_damaged_file_is_replaced(tmp_path: Path, published: Server, damage: object) -> None:
    prepare(CIFAR100, tmp_path)
    damage(tmp_path / "cifar-100-python/test")
    (tmp_path / "cifar-100-python/mine.txt").write_text("kept")
    lines: list[str] = []
    prepare(CIFAR100, tmp_path, progress=lines.append)
    assert_complete(tmp_path)
    assert f"cifar100: {tmp_path}/cifar-100-python/test is " in lines[0]
    assert (tmp_path / "cifar-100-python/mine.txt").read_text() == "kept"


def exit_code(config: TrainConfig, root: Path) -> int:
    with pytest.raises(DataError) as caught:
        prepare(config, root)
    return caught.value.exit_code


def refused(config: TrainConfig, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepare(config, root)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_other_contents_than_published_are_refused(tmp_path: Path, published: Server) -> None:
    published.files["cifar.tar.gz"] = b"something else"
    message = refused(CIFAR100, tmp_path)
    assert (
        f"{published.url('cifar.tar.gz')} gave other contents than published (MD5 6c7ba9c5a141421e1c03cb9807c97c74"
        in message
    )
    assert message.endswith(f"cifar.tar.gz and unpack it into {tmp_path}, or choose another data root (--data-root)")
    assert not (tmp_path / "cifar-100-python").exists()
    assert_nothing_half_done(tmp_path)


def test_an_archive_that_lacks_a_file_is_refused(
    tmp_path: Path, published: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataset_spec("cifar100")
    more = replace(spec, files=(DataFile("cifar-100-python/extra", "0" * 32), *spec.files))
    put_spec(monkeypatch, "cifar100", more)
    assert "in the download, " in refused(CIFAR100, tmp_path)
    assert not (tmp_path / "cifar-100-python").exists()


def test_an_interrupted_download_never_looks_whole(tmp_path: Path, published: Server) -> None:
    published.cut = 50
    size = len(published.files["cifar.tar.gz"])
    assert f"ended after 50 of {size} bytes; download http" in refused(CIFAR100, tmp_path)
    assert not (tmp_path / "cifar-100-python").exists()
    assert_nothing_half_done(tmp_path)
    published.cut = None
    prepare(CIFAR100, tmp_path)
    assert_complete(tmp_path)


def test_what_the_server_lacks_is_said_with_the_remedy(tmp_path: Path, published: Server) -> None:
    del published.files["cifar.tar.gz"]
    url = published.url("cifar.tar.gz")
    assert refused(CIFAR100, tmp_path) == (
        f"cifar100: {tmp_path}/cifar-100-python/train is missing, and {url} could not be downloaded (404 Not Found); "
        f"download {url} and unpack it into {tmp_path}, or choose another data root (--data-root)"
    )


def test_without_a_network_the_remedy_is_said(
    tmp_path: Path, published: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataset_spec("cifar100")
    # Nothing listens on port 1.
    offline = replace(spec, archive=replace(spec.archive, url="http://127.0.0.1:1/cifar.tar.gz"))
    put_spec(monkeypatch, "cifar100", offline)
    message = refused(CIFAR100, tmp_path)
    assert "http://127.0.0.1:1/cifar.tar.gz could not be downloaded (" in message
    assert "Connection refused); download http://127.0.0.1:1/cifar.tar.gz and unpack it" in message


@pytest.mark.parametrize(
    ("fault", "code"),
    [("refused", 75), ("cut short", 75), (503, 75), (429, 75), (404, 2), (403, 2), ("other contents", 2)],
)
def test_the_exit_code_says_whether_another_try_may_succeed(
    tmp_path: Path, published: Server, monkeypatch: pytest.MonkeyPatch, fault: Any, code: int
) -> None:
    if fault == "refused":
        spec = dataset_spec("cifar100")
        offline = replace(spec, archive=replace(spec.archive, url="http://127.0.0.1:1/cifar.tar.gz"))
        put_spec(monkeypatch, "cifar100", offline)
    elif fault == "cut short":
        published.cut = 50
    elif fault == "other contents":
        published.files["cifar.tar.gz"] = b"something else"
    else:
        monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(fault))
    assert exit_code(CIFAR100, tmp_path) == code


def test_a_full_disk_may_have_room_later_and_a_forbidden_one_may_not(
    tmp_path: Path, published: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, code in ((errno.ENOSPC, 75), (errno.EACCES, 2)):

        def fail(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fail)
        assert exit_code(CIFAR100, tmp_path) == code


def test_a_damaged_image_of_ones_own_is_bad_input(tmp_path: Path) -> None:
    assert exit_code(TrainConfig(dataset="folder:nowhere"), tmp_path) == 2


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path, published: Server) -> None:
    (tmp_path / "file").touch()
    root = tmp_path / "file" / "data"
    assert f"{root} cannot be written (Not a directory); download" in refused(CIFAR100, root)
    assert published.requested == []


def test_files_with_their_own_addresses_are_fetched_one_by_one(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files = {"train_32x32.mat": b"training", "test_32x32.mat": b"test"}
    files = tuple(
        DataFile(name, hashlib.md5(contents).hexdigest(), server.url(name)) for name, contents in server.files.items()
    )
    put_spec(monkeypatch, "svhn", replace(dataset_spec("svhn"), files=files))
    (tmp_path / "train_32x32.mat").write_bytes(b"training")
    # Also as the data set for out-of-distribution detection.
    prepare(TrainConfig(dataset="synthetic", ood_dataset="svhn"), tmp_path)
    assert server.requested == ["test_32x32.mat"]
    assert (tmp_path / "test_32x32.mat").read_bytes() == b"test"
    del server.files["test_32x32.mat"]
    (tmp_path / "test_32x32.mat").unlink()
    remedy = f"download {server.url('train_32x32.mat')} and {server.url('test_32x32.mat')} into {tmp_path}"
    assert remedy in refused(TrainConfig(dataset="svhn"), tmp_path)


def test_a_folder_comes_out_of_a_zip(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_folder(tmp_path / "made/tiny-imagenet-200", split="val", size=(64, 64), per_class=2)
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as archive:
        for path in sorted((tmp_path / "made").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "made"))
    server.files["tiny.zip"] = (tmp_path / "tiny.zip").read_bytes()
    spec = replace(dataset_spec("tinyimagenet"), classes=3, train_images=6, test_images=3)
    spec = replace(spec, archive=Archive(server.url("tiny.zip"), md5(tmp_path / "tiny.zip")))
    put_spec(monkeypatch, "tinyimagenet", spec)
    root = tmp_path / "data"
    for _ in range(2):
        prepare(TrainConfig(dataset="tinyimagenet"), root)
    assert server.requested == ["tiny.zip"]
    assert len(list((root / "tiny-imagenet-200").rglob("*.png"))) == 9
    # A folder that somebody damaged is not overwritten.
    (root / "tiny-imagenet-200/train/bee/0.png").unlink()
    assert "holds 5 training images, the published data set 6; delete" in refused(
        TrainConfig(dataset="tinyimagenet"), root
    )
    assert server.requested == ["tiny.zip"]


def test_imagenet_has_to_be_brought(tmp_path: Path) -> None:
    assert refused(TrainConfig(dataset="imagenet"), tmp_path) == (
        f"imagenet: {tmp_path}/imagenet is missing; put its images (from https://image-net.org (ILSVRC 2012, for "
        f"registered users)) into {tmp_path}/imagenet/train/CLASS/ and {tmp_path}/imagenet/test/CLASS/ "
        f"(or {tmp_path}/imagenet/val/CLASS/), or choose another "
        "data root (--data-root)"
    )


def test_a_folder_of_ones_own_is_checked(tmp_path: Path) -> None:
    insects = TrainConfig(dataset="folder:insects")
    assert f"folder:insects: {tmp_path}/insects is missing; put its images into" in refused(insects, tmp_path)
    fake_folder(tmp_path / "insects")
    prepare(insects, tmp_path)
    write_image(tmp_path / "insects/test/dog/0.png")
    assert "test/dog is a class that" in refused(insects, tmp_path)


def test_what_is_made_in_memory_needs_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(TrainConfig(dataset="digits", ood_dataset="synthetic"), tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    monkeypatch.setattr(download, "find_spec", lambda name: None)
    assert refused(TrainConfig(dataset="digits"), tmp_path).startswith("digits: needs scikit-learn, which is not")


def test_what_is_missing_is_said_without_a_download(tmp_path: Path, published: Server) -> None:
    assert what_is_missing("cifar100", tmp_path) == f"{tmp_path}/cifar-100-python/train is missing"
    assert published.requested == []
    prepare(CIFAR100, tmp_path)
    assert what_is_missing("cifar100", tmp_path) is None
    fake_folder(tmp_path / "imagenet", split="val")
    assert what_is_missing("imagenet", tmp_path).startswith(f"{tmp_path}/imagenet/train has 3 class folders, the pub")
    assert what_is_missing("digits", tmp_path) is None


def test_verified_contents_are_those_of_the_file(tmp_path: Path, published: Server) -> None:
    prepare(CIFAR100, tmp_path)
    file = dataset_spec("cifar100").files[0]
    assert read_verified("cifar100", tmp_path, file) == FILES[file.path]
    (tmp_path / file.path).unlink()
    (tmp_path / file.path).mkdir()
    with pytest.raises(DataError, match=r"cifar-100-python/train cannot be read \(Is a directory\); download"):
        read_verified("cifar100", tmp_path, file)


# A second process with the same facts about the data set.
PREPARE = """
import sys
from dataclasses import replace
from pathlib import Path
from trainer.config import TrainConfig
from trainer.parts import DATASETS
from trainer.spec import Archive, DataFile
from trainer.data import prepare
root, url, archive, *files = sys.argv[1:]
files = tuple(DataFile(*file.split("=")) for file in files)
part = DATASETS["cifar100"]
DATASETS._parts["cifar100"] = replace(part, facts=replace(part.facts, files=files, archive=Archive(url, archive)))
prepare(TrainConfig(), Path(root), progress=lambda line: print(line, flush=True))
assert "torch" not in sys.modules
"""


def started(root: Path) -> subprocess.Popen[str]:
    spec = dataset_spec("cifar100")
    facts = [f"{file.path}={file.md5}" for file in spec.files]
    command = [sys.executable, "-c", PREPARE, str(root), spec.archive.url, spec.archive.md5, *facts]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_several_processes_one_downloads(tmp_path: Path, published: Server) -> None:
    published.cut, published.go_on = 10, threading.Event()
    with started(tmp_path) as first:
        assert published.first_part_sent.wait(30)
        with started(tmp_path) as second:
            assert "waiting for another process" in second.stdout.readline()
            published.go_on.set()
            assert second.wait(30) == 0
            assert "downloading" not in second.stdout.read()
        assert first.wait(30) == 0
    assert published.requested == ["cifar.tar.gz"]
    assert_complete(tmp_path)


def test_a_killed_download_leaves_neither_a_lock_nor_files(tmp_path: Path, published: Server) -> None:
    published.cut, published.go_on = 10, threading.Event()
    with started(tmp_path) as victim:
        assert published.first_part_sent.wait(30)
        victim.kill()
    published.go_on.set()
    assert not (tmp_path / "cifar-100-python").exists()
    published.cut = published.go_on = None
    prepare(CIFAR100, tmp_path)
    assert_complete(tmp_path)
    assert published.requested == ["cifar.tar.gz"] * 2
