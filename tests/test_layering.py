"""The contracts of imports in setup.cfg hold and can fail, and what must start at once does."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("trainer", "orchestrator", "reports")
CATALOGUES = ("trainer.config", "trainer.datasets", "trainer.results", "trainer.networks", "trainer.problems")
ROOMS = sorted(
    ".".join(path.parent.relative_to(ROOT).parts)
    for package in PACKAGES
    for path in ROOT.glob(f"{package}/**/__init__.py")
)

# For every contract an import that it forbids.
FORBIDDEN = {
    "The rooms of orchestrator, from the top down": ("orchestrator/grid/names.py", "orchestrator.planning.plan"),
    "The rooms of reports, from the top down": ("reports/table.py", "reports.report"),
    "The rooms of trainer, from the top down": ("trainer/method.py", "trainer.objective"),
    "No circle of imports in any room": ("orchestrator/database/errors.py", "orchestrator.database.store"),
    "The trainer knows nothing of grids, Ray or SQL": ("trainer/paths.py", "orchestrator.text"),
    "Methods import no torch: tensors bring their operations": ("trainer/methods/dml.py", "torch"),
    "Reports read the database and nothing else of orchestrator": ("reports/loading.py", "orchestrator.grid"),
    "Only the command line imports reports": ("orchestrator/console/status.py", "reports"),
    "Only the scheduler and the worker import Ray": ("orchestrator/run.py", "ray"),
    "Only the database imports SQLAlchemy": ("reports/loading.py", "sqlalchemy"),
    "The database needs neither Ray nor PyTorch nor pandas": ("orchestrator/database/models.py", "pandas"),
    "Grids, plans and statistics are pure": ("orchestrator/planning/canary.py", "torch"),
    "Only commands and screens write on the terminal": ("orchestrator/run.py", "typer"),
    "Only the store of files imports fsspec": ("orchestrator/storage/staging.py", "fsspec"),
    "Only the live page's server imports aiohttp": ("orchestrator/serving/watcher.py", "aiohttp"),
    "Nothing imports scikit-learn: of it, only the digits' file is read": ("trainer/metrics.py", "sklearn"),
}


def broken(root: Path) -> set[str]:
    """Run `lint-imports` on a source tree, and return the names of the contracts that are broken there."""
    lint = [str(Path(sys.executable).with_name("lint-imports")), "setup.cfg", "--no-cache"]
    done = subprocess.run(lint, capture_output=True, text=True, cwd=root, env={"PYTHONPATH": str(root)})
    names = set(re.findall(r"^(.+) BROKEN$", done.stdout, re.MULTILINE))
    assert done.returncode == bool(names), done.stdout + done.stderr
    assert "Contracts: " in done.stdout, done.stdout
    return names


def test_imports_keep_to_the_contracts():
    assert broken(ROOT) == set()


def test_every_contract_is_tried():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert {config[name]["name"] for name in config if name.startswith("importlinter:contract:")} == set(FORBIDDEN)


@pytest.mark.parametrize("contract", FORBIDDEN)
def test_a_forbidden_import_breaks_its_contract(contract: str, tmp_path: Path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    file, module = FORBIDDEN[contract]
    with (tmp_path / file).open("a") as source:
        source.write(f"\nimport {module}\n")
    assert contract in broken(tmp_path)


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_passes_on_is_there(room: str):
    package = import_module(room)
    assert [name for name in getattr(package, "__all__", ()) if not hasattr(package, name)] == []
    assert not hasattr(package, "nothing_of_this_name")


@pytest.mark.parametrize(
    "module",
    [
        *("orchestrator.cli", "orchestrator.grid", "orchestrator.planning", "orchestrator.console.status", "reports"),
        *CATALOGUES,
    ],
)
def test_starting_loads_neither_torch_nor_ray(module):
    heavy = ("torch", "ray", "pandas", "matplotlib", "sklearn", "scipy")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_looking_at_grids_does_not_load_what_checks_them():
    # `status` and `watch` must not be felt: the checks of a grid file cost as much as everything else they load.
    heavy = ("orchestrator.grid", "orchestrator.scheduler", "trainer.config")
    looking = "import sys, orchestrator.console.status, orchestrator.database"
    code = f"{looking}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def imported(source: str) -> set[str]:
    """Return the modules that a source imports, and what may be a module among the names that it takes from them."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def from_tests(source: str) -> list[str]:
    """Return the test modules and conftest files that a source imports."""
    return sorted(name for name in imported(source) if re.search(r"(^|\.)(test_\w+|conftest)$", name))


@pytest.mark.parametrize(
    "source",
    [
        *("import tests.grid.test_load", "from tests.grid.test_load import entry", "from .test_load import entry"),
        *("from tests.grid import test_load", "def late():\n    from tests.conftest import folder"),
    ],
)
def test_an_import_of_a_test_module_is_noticed(source: str):
    assert from_tests(source)
    assert not from_tests("from tests.lookup import entry")


def test_tests_import_no_fixtures_from_one_another():
    # Shared fixtures belong into a conftest.py, where pytest looks; shared functions into a module of their own.
    by_path = {str(path.relative_to(ROOT)): from_tests(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}
    assert {path: names for path, names in by_path.items() if names} == {}


def test_every_folder_of_tests_is_a_package():
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]
