"""Define what a declared table may say; a grid file, a file of its own and the shipped layouts all say it this way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainer.problems import problem, shown, unknown

# Rows that are computed rather than matched.
SOURCES = ("grids", "interactions", "losses")
# Columns that are computed from others or stand for several.
COUNTS = ("trials", "done", "running", "pending", "failed", "diverged")
COLUMNS = ("top1", "top5", "nll", "ece", "aurc", "auroc", "accuracy", "train_time", "epoch_time")
SPECIAL = ("classifiers", "moments", *COUNTS)
# Published values that ship, `reports/published/`.
PUBLISHED = (
    *("table1", "table2", "table3", "table4"),
    *("pskd_cifar100", "pskd_imagenet", "pskd_ood", "dcm_cifar100"),
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,109}")
_KEY = re.compile(r"[A-Za-z0-9_.,:=+()\[\]-]{1,120}")
# Names of files that a report writes itself.
RESERVED = ("report", "numbers", "overview")
# The tables and figures that ship (`reports/layouts`, `reports/figures`), in the order of a report: the main paper's
# by number, the other sources' by name.
SHIPPED: Mapping[Literal["table", "figure"], tuple[int | str, ...]] = {
    "table": (1, 2, 3, 4, "tinyimagenet", "pskd", "dcm", "ood", "fidelity", "interactions", "losses"),
    "figure": (2,),
}

Fields = tuple[str, ...]
Match = dict[str, Any]


def shipped_names(kind: Literal["table", "figure"]) -> tuple[str, ...]:
    """Return the names that the shipped tables or figures have as files: `table1`."""
    return tuple(f"{kind}{name}" if isinstance(name, int) else name for name in SHIPPED[kind])


def as_list(value: Any) -> Any:
    """Return a field or a list of fields as a list."""
    return [value] if isinstance(value, str) else [] if value is None else value


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnSpec(_Strict):
    """A column: a metric of the main classifier of the first network, unless its options say otherwise."""

    metric: str
    key: str | None = None
    title: str | None = None
    unit: str | None = None
    digits: int | None = Field(default=None, ge=0, le=12)
    network: int = Field(default=0, ge=0, le=1)
    classifier: str = "main"
    better: Literal["lower", "higher"] | None = None
    minus: Any = None
    p: Any = None
    mean: bool = False

    @field_validator("key")
    @classmethod
    def _address(cls, key: str | None) -> str | None:
        return _address(key)

    @model_validator(mode="after")
    def _one_kind(self) -> ColumnSpec:
        kinds = [name for name in ("minus", "p", "mean") if name in self.model_fields_set and getattr(self, name)]
        if len(kinds) > 1:
            raise problem(f"has both {kinds[0]} and {kinds[1]}; write two columns", kinds[1])
        return self

    @property
    def name(self) -> str:
        """Return the column's part of an address."""
        kind = "-minus" if self.minus is not None else "-p" if self.p is not None else "-mean" if self.mean else ""
        other = "" if self.classifier == "main" else f"-{self.classifier}"
        return self.key or f"{self.metric}{'-net2' if self.network else ''}{other}{kind}"


class RowSpec(_Strict):
    """A row of an explicit list: the fields that it has, or several such choices of which the first with trials counts.

    `alone` fills the columns of each network from the cell of that network trained alone.
    """

    choices: tuple[Match, ...]
    notes: tuple[str, ...] = ()
    key: str | None = None
    label: tuple[str, ...] = ()
    alone: bool = False

    @field_validator("key")
    @classmethod
    def _address(cls, key: str | None) -> str | None:
        return _address(key)

    @property
    def shared(self) -> Match:
        """Return the fields that all choices give one value: the row's name, where it has no `key` or `label`."""
        first, *others = self.choices
        return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}

    @field_validator("label", mode="before")
    @classmethod
    def _texts(cls, label: Any) -> Any:
        return tuple(map(str, label)) if isinstance(label, list | tuple) else (str(label),)


class GroupSpec(_Strict):
    """Row groups: the fields that make one, and how its heading and its part of an address are put together.

    In `label` and `key`, `{field}` is its value, `{a|b}` the first that is set, and a part in brackets goes where its
    field is not set. `having` names the cells that open a group.
    """

    fields: Fields = Field(min_length=1)
    label: str | None = None
    key: str | None = None
    head: str | None = None
    parameters: bool = False
    having: Match = Field(default_factory=dict)

    _listed = field_validator("fields", mode="before")(as_list)


class BoldSpec(_Strict):
    """Choose what is bold: all that is not ruled out as the best, the best mean alone, or nothing; within what.

    `correction` is for the number of comparisons, from three on: with the best (`hsu`), of all pairs (`holm`), `none`.
    """

    rule: Literal["noise", "best", "none"] = "noise"
    correction: Literal["hsu", "holm", "none"] = "hsu"
    within: Literal["column", "row"] = "column"


class PublishedValue(_Strict):
    """A published value. `row` and `column` are an address in the table, an asterisk in `row` stands for any text.

    `printed_row`, `printed_column` and `printed` are as the source has them; `value` is in the table's units, None
    where `printed` says it; `std` is over `runs`; `footnote` is the source's own; `doubt` says what speaks against the
    value; `recipe` holds fields of the configuration behind it; `line` is that of the file.
    """

    row: str
    column: str
    printed: str
    value: float | None = None
    std: float | None = None
    runs: int = 1
    printed_row: str = ""
    printed_column: str = ""
    source: str = ""
    recipe: Match = Field(default_factory=dict)
    footnote: str = ""
    doubt: str = ""
    line: int = 0


class ReferenceSpec(_Strict):
    """Published values: a name that ships, or a file with its `values`; `source` and `recipe` hold for all of them."""

    file: str
    source: str = ""
    recipe: Match = Field(default_factory=dict)
    values: tuple[PublishedValue, ...] | None = None

    @field_validator("file")
    @classmethod
    def _known(cls, file: str) -> str:
        if not file.endswith(".csv") and file not in PUBLISHED:
            raise problem(unknown("reference", file, PUBLISHED, ", or a file such as published.csv"))
        return file


class LatexSpec(_Strict):
    """Options of a table in LaTeX.

    `siunitx` aligns numbers at their points; `long` breaks a table over pages (longtable, one column of text only);
    `wide` says what becomes of one that is too wide for a page: it is turned, or cut into parts.
    """

    siunitx: bool = False
    long: bool = False
    wide: Literal["turn", "parts"] = "turn"


class Declaration(_Strict):
    """The part of a declaration that tables and figures share: a name, the trials that count, order and names."""

    name: str
    title: str = ""
    about: str = ""
    grids: Literal["own", "all"] = "own"
    per: Literal["setting"] | None = None
    where: Match = Field(default_factory=dict)
    prefer: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    over: Fields = ("seed",)
    order: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    names: dict[str, str] = Field(default_factory=dict)

    _listed = field_validator("over", mode="before")(as_list)

    @field_validator("name")
    @classmethod
    def _file_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise problem(f"{shown(name)} cannot name a file: letters, digits, dashes and underscores, at most 110")
        return name

    @field_validator("names", mode="before")
    @classmethod
    def _texts(cls, names: Any) -> Any:
        return {str(name): str(text) for name, text in names.items()} if isinstance(names, dict) else names

    @field_validator("order", "prefer", mode="before")
    @classmethod
    def _lists(cls, order: Any) -> Any:
        if not isinstance(order, dict):
            return order
        return {name: tuple(each) if isinstance(each, list | tuple) else (each,) for name, each in order.items()}


class TableSpec(Declaration):
    """A declared table, in its full form: every short form that a file may use has become this one."""

    groups: GroupSpec | None = None
    rows: Fields | tuple[RowSpec, ...] = ()
    source: Literal["grids", "interactions", "losses"] | None = None
    stub: tuple[str, ...] = ()
    across: str | None = None
    columns: tuple[ColumnSpec, ...] = Field(min_length=1)
    show: Literal["mean_std", "mean_ci95", "median_iqr", "each"] = "mean_std"
    bold: BoldSpec = Field(default_factory=BoldSpec)
    reference: tuple[ReferenceSpec, ...] = ()
    missing: Literal["dash", "drop", "error"] = "dash"
    notes: Literal["full", "short", "none"] = "short"
    latex: LatexSpec = Field(default_factory=LatexSpec)

    @model_validator(mode="after")
    def _consistent(self) -> TableSpec:
        keys = [column.name for column in self.columns]
        twice = [key for place, key in enumerate(keys) if key in keys[:place]]
        if twice:
            raise problem(f"{twice[0]} stands twice; give one of them another key", "columns")
        for place, column in enumerate(self.columns):
            if column.mean and not self.across:
                raise problem("mean averages over `across`, which is not given", "columns", str(place), "mean")
        if self.source and self.reference:
            raise problem("is of no use: computed rows are not compared with published values", "reference")
        if self.stub and self.row_fields and len(self.stub) != len(self.row_fields):
            raise problem(f"has {len(self.stub)} headings for {len(self.row_fields)} fields", "stub")
        if self.across in self.row_fields or (self.groups and self.across in self.groups.fields):
            raise problem(f"{self.across} is in rows or groups as well; leave one out", "across")
        return self

    @property
    def explicit(self) -> tuple[RowSpec, ...]:
        """Return the rows of an explicit list; none where rows are fields."""
        return tuple(row for row in self.rows if isinstance(row, RowSpec))

    @property
    def row_fields(self) -> tuple[str, ...]:
        """Return the fields whose values are the rows; none for an explicit list."""
        return tuple(row for row in self.rows if isinstance(row, str))

    @property
    def placed(self) -> tuple[str, ...]:
        """Return the fields that groups, rows and `across` have a place for."""
        explicit = [name for row in self.explicit for choice in row.choices for name in choice]
        across = [self.across] if self.across else []
        return tuple(dict.fromkeys([*self.group_fields, *self.row_fields, *explicit, *across]))

    @property
    def places_seeds(self) -> bool:
        """Return whether seeds stand in the table themselves and are not averaged."""
        return "seed" in (*self.placed, *self.where)

    @property
    def group_fields(self) -> tuple[str, ...]:
        """Return the fields that make a group."""
        return self.groups.fields if self.groups else ()


def _address(key: str | None) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        raise problem(f"{shown(key)} cannot be part of an address: no spaces, slashes, braces or percent signs")
    return key
