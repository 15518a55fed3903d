"""Who may import whom. Trainer, database and reports are separate worlds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("trainer", "orchestrator", "reports")
THIRD_PARTY = {
    *("torch", "torchvision", "numpy", "pydantic", "pydantic_core", "sklearn", "scipy", "PIL"),
    *("ray", "sqlalchemy", "alembic", "psycopg", "pandas", "pyarrow", "matplotlib", "jinja2"),
    *("typer", "rich", "ruamel", "psutil", "pynvml", "fsspec"),
}
CATALOGUES = ("trainer.config", "trainer.datasets", "trainer.results", "trainer.networks", "trainer.problems")


def imports(path: Path) -> set[str]:
    """Every absolute module name that a file imports, in functions and for type checking as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def runtime_imports(path: Path) -> set[str]:
    """Names imported when the module itself is imported: not those in functions or `if TYPE_CHECKING`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def modules(*patterns: str) -> list[Path]:
    found = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    assert found, patterns
    return found


def offenders(paths: list[Path], *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports(path)
        for prefix in forbidden
        if name == prefix or name.startswith(prefix + ".")
    ]


def test_the_trainer_stands_alone():
    allowed = {"torch", "torchvision", "numpy", "pydantic", "pydantic_core", "sklearn", "scipy", "PIL"}
    assert not offenders(modules("trainer/**/*.py"), *(THIRD_PARTY - allowed), "orchestrator", "reports")


def test_scikit_learn_is_for_the_digits_only():
    paths = [path for path in modules("trainer/**/*.py") if path.name not in ("reading.py", "download.py")]
    assert not offenders(paths, "sklearn")


def test_methods_import_the_objective_and_the_losses_and_no_torch():
    paths = modules("trainer/methods/*.py")
    ours = {name for path in paths for name in imports(path) if name.startswith("trainer")}
    top = {".".join(name.split(".")[:2]) for name in ours}
    assert top <= {"trainer.objective", "trainer.losses"}, top
    for path in paths:
        assert not {name for name in runtime_imports(path) if name.split(".")[0] == "torch"}, path


def test_grid_and_plan_are_pure():
    names = ("grid", "plan", "document", "problems", "choices", "expansion", "names", "estimate", "forecast", "canary")
    paths = modules(*(f"orchestrator/{name}.py" for name in names))
    assert not offenders(
        paths, "ray", "sqlalchemy", "torch", "trainer.train", "trainer.data.splits", "orchestrator.database"
    )


def test_only_the_scheduler_imports_ray():
    # And what belongs to it: the cluster, the talk with Tune, and the actors of a trial in several processes.
    paths = [path for path in modules("*/**/*.py") if path.parts[len(ROOT.parts)] in PACKAGES]
    scheduler = {ROOT / f"orchestrator/{name}.py" for name in ("scheduler", "cluster", "tuning", "gang")}
    assert not offenders([path for path in paths if path not in scheduler], "ray")


def test_only_storage_imports_fsspec():
    paths = [path for path in modules("*/**/*.py") if path.parts[len(ROOT.parts)] in PACKAGES]
    assert not offenders([path for path in paths if path != ROOT / "orchestrator/storage/store.py"], "fsspec")
    assert not offenders([ROOT / f"orchestrator/{name}.py" for name in ("storage", "staging")], "ray", "torch")


def test_only_the_database_imports_sqlalchemy():
    paths = [path for path in modules("*/**/*.py") if path.parts[len(ROOT.parts)] in PACKAGES]
    outside = [path for path in paths if ROOT / "orchestrator/database" not in path.parents]
    assert not offenders(outside, "sqlalchemy", "alembic")
    assert not offenders(modules("orchestrator/database/**/*.py"), "ray", "torch", "pandas")


def test_reports_know_the_database_only():
    assert not offenders(
        modules("reports/**/*.py"), "ray", "torch", "trainer", "orchestrator.scheduler.trials", "orchestrator.grid.load"
    )


@pytest.mark.parametrize(
    "module",
    [
        "orchestrator.cli",
        "orchestrator.grid.load",
        "orchestrator.planning.plan",
        "orchestrator.console.status",
        "reports",
        *CATALOGUES,
    ],
)
def test_starting_loads_neither_torch_nor_ray(module):
    heavy = ("torch", "ray", "pandas", "matplotlib", "sklearn")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_looking_at_grids_does_not_load_what_checks_them():
    # `status` and `watch` must not be felt: the checks of a grid file cost as much as everything else they load.
    heavy = ("orchestrator.grid.load", "orchestrator.scheduler.trials", "trainer.config")
    code = f"import sys, orchestrator.console.status, orchestrator.database; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_every_folder_of_tests_is_a_package():
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]
