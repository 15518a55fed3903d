"""The registries of parts: names that clash, digests that comments do not change, and files that are followed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainer import Method, dataset, metric, network
from trainer.config import TrainConfig
from trainer.parts import DATASETS, METHODS, METRICS, NETWORKS, REGISTRIES
from trainer.registry import PartError
from trainer.sources import source_digest, source_files

HERE = Path(__file__)


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    with METHODS.apart(), NETWORKS.apart(), DATASETS.apart(), METRICS.apart():
        yield


def register_halved(title: str = "Halved") -> type[Method]:
    @dataclass
    class Halved(Method):
        name = "halved"
        version = 3
        weight: float = 0.5

    return Halved


def test_a_method_is_a_part_with_the_place_where_it_was_written():
    cls = register_halved()
    part = METHODS["halved"]
    assert (part.kind, part.title, part.version, part.make) == ("method", "halved", 3, cls)
    assert part.file == HERE and HERE.read_text().splitlines()[part.line - 1].strip() in (
        "@dataclass",
        "class Halved(Method):",
    )
    assert TrainConfig(methods={"halved": {"weight": 0.25}}).methods == {"halved": {"weight": 0.25}}


def test_the_same_statement_again_is_no_clash():
    register_halved()
    again = register_halved()
    assert METHODS["halved"].make is again
    # What was remembered of the first is forgotten.
    assert type(TrainConfig(methods={"halved": {}}).build_methods()[0]) is again


def test_a_taken_name_is_an_error_with_both_places():
    with pytest.raises(PartError, match=r"two methods are named 'byot': one in .*byot\.py:\d+, one in .*test_parts"):

        class Other(Method):
            name = "byot"

    with pytest.raises(PartError, match=r"two networks are named 'resnet18'.*resnet\.py, one in .*test_parts\.py:\d+"):

        @network("resnet18")
        def build(num_classes):
            """Never built."""

    assert METHODS["byot"].make.__name__ == "BYOT"


@pytest.mark.parametrize("name", ["a+b", "torchvision:a", "", "a b", 3])
def test_names_that_rows_could_not_tell_apart_are_refused(name):
    with pytest.raises(PartError, match=r"cannot be the name of a metric"):
        metric(name, direction="lower")(lambda probabilities, labels: 0.0)


def test_baseline_is_no_method():
    with pytest.raises(PartError, match="training without any method"):
        type("Base", (Method,), {"name": "baseline", "__module__": __name__})


@pytest.mark.parametrize("version", [0, True, "2", 1.5])
def test_versions_count_from_one(version):
    with pytest.raises(PartError, match=r"must be 1, 2, 3"):
        network("mine", version=version)(lambda num_classes: None)


def test_a_network_takes_what_its_function_takes():
    network("plain", title="Plain")(lambda num_classes, width=64, depth=3: None)
    network("anything")(lambda num_classes, **more: None)
    assert NETWORKS["plain"].title == "Plain" and NETWORKS["plain"].facts.takes == ("width",)
    assert not NETWORKS["plain"].facts.features
    assert NETWORKS["anything"].facts.takes == ("width", "stages", "heads")
    with pytest.raises(PartError, match=r"test_parts\.py:\d+: .* takes no num_classes"):
        network("classless")(lambda width: None)
    with pytest.raises(PartError, match="takes 'depth', which nothing gives"):
        network("deep")(lambda num_classes, depth: None)


def test_data_sets_and_metrics_are_parts():
    dataset("blobs", title="Blobs", version=2, classes=3, train_images=9, size=32)(lambda root: None)
    assert DATASETS["blobs"].facts.classes == 3 and DATASETS["blobs"].to_dict()["size"] == 32
    with pytest.raises(PartError, match="the data set 'other' got an unexpected keyword argument 'clases'"):
        dataset("other", clases=3, train_images=9, size=32)(lambda root: None)
    metric("brier", direction="lower", digits=3)(lambda probabilities, labels: 0.0)
    assert METRICS["brier"].to_dict() == {"direction": "lower", "digits": 3, "unit": ""}
    with pytest.raises(PartError, match="give 'lower' or 'higher'"):
        metric("other", direction="down")(lambda probabilities, labels: 0.0)


@pytest.mark.parametrize("registry", REGISTRIES[:2], ids=lambda registry: registry.kind)
def test_what_ships_has_titles_files_and_digests(registry):
    assert registry
    for name, part in registry.items():
        assert part.name == name and part.title and part.version == 1
        assert len(part.digest) == 64 and len(part.files) == 1 and part.files[0].is_file()


def test_the_door_is_light():
    code = (
        "import sys, trainer; before = 'pydantic' in sys.modules\n"
        "from trainer import Method, dataset, metric, network\n"
        "from trainer.parts import METHODS, NETWORKS; len(METHODS), len(NETWORKS)\n"
        "print(before, [name for name in ('torch', 'numpy', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "False []"


BEFORE = '''
"""A loss."""
import math
class Loss:
    """Explain it."""
    weight: float = 0.1   # a remark
    def f(self, x):
        """Return x."""
        return (x + self.weight) * math.pi
'''
AFTER = """
import math


class Loss:
    weight: float = 0.1

    def f(self, x):
        return (
            x + self.weight
        ) * math.pi
"""


def test_comments_docstrings_and_formatting_do_not_change_a_digest(tmp_path: Path):
    digests = []
    for number, text in enumerate([BEFORE, AFTER, AFTER.replace("0.1", "0.2"), AFTER + "Loss.weight = 0.1\n"]):
        path = tmp_path / f"{number}.py"
        path.write_text(text)
        digests.append(source_digest([path]))
    assert digests[0] == digests[1] and len(set(digests)) == 3
    # Computed once, with Python 3.11: every version has to give it.
    assert digests[0] == "bd88a40062dc19847a2f5b555a9a269676c3eb3fc121ea537e55a9b0d26129cf"


def test_a_string_that_is_no_docstring_counts(tmp_path: Path):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("def f():\n    return 'a'\n")
    two.write_text("def f():\n    return 'b'\n")
    assert source_digest([one]) != source_digest([two])
    assert source_digest([one, two]) == source_digest([two, one])
    assert source_digest([one], tmp_path) != source_digest([one])


def test_files_are_followed_in_their_folder(tmp_path: Path):
    (tmp_path / "package").mkdir()
    sources = {
        "parts.py": "import torch, helper, json\ndef f():\n    from package.inner import g\n",
        "helper.py": "from trainer import Method\n",
        "json.py": "never = 1\n",
        "trainer.py": "never = 1\n",
        "other.py": "never = 1\n",
        "package/__init__.py": "",
        "package/inner.py": "from . import deep\nfrom .missing import x\nimport helper\n",
        "package/deep.py": "",
        "package/never.py": "",
    }
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    followed = [path.relative_to(tmp_path).as_posix() for path in source_files(tmp_path / "parts.py")]
    assert followed == ["parts.py", "helper.py", "package/__init__.py", "package/deep.py", "package/inner.py"]
    followed = [path.relative_to(tmp_path).as_posix() for path in source_files(tmp_path / "package" / "inner.py")]
    assert followed == ["package/inner.py", "helper.py", "package/__init__.py", "package/deep.py"]
