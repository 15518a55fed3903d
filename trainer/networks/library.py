"""Networks of libraries: `torchvision:NAME` and `timm:NAME`, untrained. No torch before one is built."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainer.parts import NetworkFacts
from trainer.registry import Part, PartError

# The modules whose files define the networks of each library, and what installs it.
LIBRARIES = {"torchvision": "torchvision", "timm": "orchestrate-ablations[timm]"}

# A network is a function that the library has registered.
_REGISTERED = re.compile(r"^@register_model\b[^\n]*\n(?:@[^\n]*\n)*def (\w+)\(", re.MULTILINE)


@cache
def library_network(name: str) -> Part[NetworkFacts] | None:
    """Return the network `LIBRARY:NAME` as a part, None for a name of another form.

    Raises PartError for a network that the library does not have, and for a library that is not installed.
    """
    library, colon, model = name.partition(":")
    if not colon or library not in LIBRARIES:
        return None
    models = _models(library)
    if model not in models:
        near = get_close_matches(model, models, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(f'{library}:{other}' for other in near)}?" if near else ""
        raise PartError(f"{library} has no network {model!r} that classifies images{hint}")

    def build(num_classes: int) -> Any:
        if library == "timm":
            return import_module("timm").create_model(model, pretrained=False, num_classes=num_classes)
        return import_module("torchvision.models").get_model(model, weights=None, num_classes=num_classes)

    return Part(
        kind="network",
        name=name,
        title=f"{model} ({library})",
        version=1,
        facts=NetworkFacts(takes=()),
        make=build,
        file=models[model],
        own_files=(models[model],),
    )


@cache
def _models(library: str) -> dict[str, Path]:
    """Return the networks of a library and the files that define them, read without importing the library."""
    spec = find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise PartError(f"{library} is not installed here; `pip install '{LIBRARIES[library]}'` does that")
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    return {
        name: path
        for path in sorted(folder.glob("*.py"))
        for name in _REGISTERED.findall(path.read_text(encoding="utf-8"))
    }
