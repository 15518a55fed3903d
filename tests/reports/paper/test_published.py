"""The ledger of printed values, the verdicts on ours, and the contradictions within the sources."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from reports.columns import EPOCH, NLL, TOP1, TRAINING
from reports.gathering import gather
from reports.loading import load
from reports.paper.published import VERDICTS, Printed, compare, contradiction_table, judge, ledger, settings
from reports.results import Selection
from reports.table import Entry, Row, Sample, Table
from tests.reports.lookup import build, one
from tests.reports.paper.contradictions import contradictions
from tests.reports.synthetic import ablation, make_database, trials
from trainer.parts import NETWORKS


def printed(source: str, row: str, column: str) -> Printed:
    (value,) = [each for each in ledger() if (each.source, each.row, each.column) == (source, row, column)]
    return value


def test_every_printed_value_is_there_once():
    counts = Counter(each.source for each in ledger())
    assert counts == {
        "table1": 24 * 7,
        "table2": 6 * 5,
        "table3": 3 * 3,
        "table4": 3 * 3,
        "pskd_cifar100": 25 * 5,
        "pskd_imagenet": 2 + 5 * 5,
        "pskd_ood": 2,
        "dcm_cifar100": 6 * 2,
    }
    places = [(each.source, each.row, each.column) for each in ledger()]
    assert len(set(places)) == len(places)


def test_values_agree_with_what_is_printed():
    for value in ledger():
        numbers = [float(number) for number in re.findall(r"[\d.]+", value.printed)]
        if value.column == "train_time":
            minutes, seconds = [*numbers, 0][:2]
            assert value.value == 60 * minutes + seconds, value
        else:
            assert value.value == numbers[0], value
            assert value.std == (numbers[1] if len(numbers) > 1 else None)
    assert printed("table1", "resnet18/pskd+byot+dmfl", "top1").value == 20.03
    assert printed("table1", "resnext50_32x4d/dmfl", "epoch_time").value == 145.137
    assert printed("table2", "resnet18/pskd+byot+dmfl", "head1").printed_column == "3/4"
    assert printed("dcm_cifar100", "wrn28_10+mobilenet/dcm", "net2")[6:9] == (21.43, 0.20, 5)


def test_every_row_is_a_row_of_our_tables(tmp_path):
    """An address that no table has would never be compared."""
    with make_database(tmp_path / "results.db", lambda filler: filler.grid("g", {}, trials(ablation([0])))) as database:
        results = load(database)
        table1, table2 = (build(results, [number])[0] for number in (1, 2))
    for table, source in ((table1, "table1"), (table2, "table2")):
        places = {f"{row.key}/{column.key}" for row in table.rows for column in table.columns}
        theirs = {f"{e.row}/{e.column}" for e in ledger() if e.source == source and e.row.startswith("resnet18/")}
        assert theirs == places
    for value in ledger():
        network = value.row.partition("/")[0].split("+")[0]
        assert network in (*NETWORKS, "densenet264") or value.source == "pskd_ood", value


def contradicting(values) -> list[str]:
    return [" | ".join(each) for each in contradictions(values)]


# Section by section what is known to disagree: words that one and the same finding must hold.
KNOWN = [
    ("20.03", "20.23", "Table 1", "Table 3"),
    ("4.16", "4.56", "Table 1", "Table 3"),
    ("20.03", "79.76 (error 20.24)", "Table 2"),
    ("17.52", "81.98 (error 18.02)"),
    ("18.27", "81.59 (error 18.41)"),
    ("21.96", "79.04 (error 20.96)"),
    ("starred once", "blocks 3", "4 backbone blocks", "shared GPU", "not starred"),
    ("column names reversed", "ResNet-18", "3/4: 67.90 < 2/4: 75.22 < 1/4: 78.92"),
    ("column names reversed", "ResNet-50"),
    ("column names reversed", "ResNeXt-50"),
    ("longer than the run", "ResNet-18 baseline: 944 / 5", "2,235 epochs", "of 300"),
]


@pytest.mark.parametrize("words", KNOWN, ids=lambda words: " ".join(words)[:40])
def test_the_papers_own_values_show_every_known_contradiction(words):
    assert any(all(word in found for word in words) for found in contradicting(ledger()))


def test_nothing_else_is_a_contradiction():
    kinds = Counter(found.what for found in contradictions(ledger()))
    assert kinds == {
        "the same thing, two values": 6,
        "one run, starred once": 1,
        "column names reversed": 3,
        # Every row of Table 1, of which the first is the one known.
        "longer than the run": 24,
    }


def test_values_that_were_put_right_contradict_nothing():
    right = {
        ("table1", "resnet18/pskd+byot+dmfl", "top1"): "20.23",
        ("table1", "resnet18/pskd+byot+dmfl", "top5"): "4.56",
        ("table1", "resnet50/pskd+byot+dmfl", "top1"): "18.02",
        ("table1", "resnext50_32x4d/pskd+byot+dmfl", "top1"): "18.41",
        ("table1", "resnet50/baseline", "top1"): "20.96",
    }
    names = {"head1": "1/4", "head2": "2/4", "head3": "3/4"}
    values = []
    for value in ledger():
        text = right.get((value.source, value.row, value.column))
        value = value._replace(printed=text, value=float(text)) if text else value
        if value.source == "table2":
            value = value._replace(printed_column=names.get(value.column, value.printed_column))
        if value.column == "train_time":
            value = value._replace(
                footnote="", value=min(value.value, 300 * 25.0) if value.source == "table1" else value.value
            )
            value = value._replace(value=7500.0, printed="125") if value.source == "table3" else value
            value = value._replace(value=7500.0, printed="125 / 0") if value.source == "table4" else value
        values.append(value)
    assert contradictions(values) == []


def test_every_doubt_that_the_ledger_names_is_found_by_the_check():
    """A doubted value is one that the check reports, or one whose run is not fully known."""
    text = "\n".join(contradicting(ledger()))
    for value in ledger():
        if value.doubt and "not known" not in value.doubt:
            assert value.printed in text, value


def test_the_table_lists_every_contradiction():
    rows = [(*row.labels, *(entry.text for entry in row.entries)) for row in contradiction_table().rows]
    assert rows == [tuple(each) for each in contradictions(ledger())]


def test_every_value_in_a_contradiction_is_doubted():
    doubted = {f"{each.printed_row}, {each.printed_column}: {each.printed}" for each in ledger() if each.doubt}
    doubted |= {f"{each.printed_row}: {each.printed}" for each in ledger() if each.doubt}
    for contradiction in contradictions(ledger()):
        sides = [contradiction.here]
        if contradiction.what in ("the same thing, two values", "one run, starred once"):
            sides.append(contradiction.elsewhere)
        # A value whose column is named wrongly is right: the ledger has it in the column where it belongs.
        for side in sides if contradiction.what != "column names reversed" else ():
            value = re.sub(r"^Table \d: | \(error [\d.]+\)$|, (starred: .*|not starred)$", "", side)
            assert value in doubted, contradiction


SELECTION = Selection.parse("best_test")


def table_of(column, fixed=None, selection=SELECTION) -> Table:
    setting = {name: value for name, value in settings()["table1"].items() if name != "selection"}
    return Table(
        "table1", "table1", "T", "", ("Method",), (column,), (), selection=selection, fixed=setting | (fixed or {})
    )


def ours(*values, images=10_000, exclusive=True) -> Entry:
    samples = tuple(Sample(str(s), "", s, 0, value, images, exclusive) for s, value in enumerate(values))
    mean = sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else None
    return Entry("done", mean, spread, len(values), len(values), star=not exclusive, samples=samples)


CLEAN = printed("table1", "resnet18/pskd", "top1")  # 19.94


@pytest.mark.parametrize(
    ("entry", "verdict"),
    [
        (ours(19.9381), "match"),
        (ours(19.9449), "match"),
        (ours(20.30), "within noise"),  # 1.96 times 0.565
        (ours(21.04), "within noise"),
        (ours(21.06), "differs"),
        # t of two degrees of freedom, for a new run: 4.303 * 0.1 * sqrt(4 / 3) = 0.497
        (ours(20.3, 20.4, 20.5), "within noise"),
        (ours(20.34, 20.44, 20.54), "differs"),
        (Entry("missing"), "\u2013"),
    ],
)
def test_verdicts_follow_the_noise(entry, verdict):
    assert judge(CLEAN, entry, TOP1, table_of(TOP1)) == (verdict, "")


def test_the_published_spread_counts_where_there_is_one():
    published = printed("dcm_cifar100", "wrn28_10+wrn28_10/dcm", "net1")  # 16.61 over 5 runs, 0.24
    setting = {name: value for name, value in settings()["dcm_cifar100"].items()}
    table = Table("dcm", "dcm", "T", "", ("Method",), (TOP1,), (), selection=SELECTION, fixed=setting)
    # One run of ours: 2.776 * 0.24 * sqrt(6 / 5) = 0.73.
    assert judge(published, ours(17.33), TOP1, table)[0] == "within noise"
    assert judge(published, ours(17.36), TOP1, table)[0] == "differs"
    # Five of ours with the same spread, by Welch: 2.306 * 0.24 * sqrt(2 / 5) = 0.35.
    five = ours(*(17.0 + 0.24 * z for z in (-1.2649, -0.6325, 0, 0.6325, 1.2649)))
    assert judge(published, replace(five, value=16.95), TOP1, table)[0] == "within noise"
    assert judge(published, replace(five, value=16.97), TOP1, table)[0] == "differs"


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (lambda: judge(CLEAN, ours(19.94), TOP1, table_of(TOP1, {"width": 16})), r"width 16 \(published: width 64\)"),
        (
            lambda: judge(CLEAN, ours(19.94), TOP1, table_of(TOP1, {"epochs": 30})),
            r"30 epochs \(published: 300 epochs\)",
        ),
        (
            lambda: judge(CLEAN, ours(19.94), TOP1, table_of(TOP1, {"dataset": "digits"})),
            "[Dd]igits .published: CIFAR-100",
        ),
        (lambda: judge(CLEAN, ours(19.94), TOP1, table_of(TOP1, {"subset": 20})), "20 training images per class"),
        (
            lambda: judge(CLEAN, ours(19.94), TOP1, table_of(TOP1, selection=Selection.parse("last"))),
            r"selection last \(published: selection best_test\)",
        ),
        (lambda: judge(CLEAN, ours(19.94), TOP1, table_of(TOP1), "with DMFL (variant released)"), "variant released"),
        (lambda: judge(CLEAN._replace(doubt="two values"), ours(19.94), TOP1, table_of(TOP1)), "in doubt: two values"),
        (
            lambda: judge(printed("table1", "resnet18/pskd", "nll"), ours(0.84, images=None), NLL, table_of(NLL)),
            "noise of NLL is unknown with fewer than 3 seeds",
        ),
        (
            lambda: judge(
                printed("table1", "resnet18/pskd", "epoch_time"), ours(27.0, images=None), EPOCH, table_of(EPOCH)
            ),
            "depends on the device",
        ),
        (
            lambda: judge(
                printed("table1", "resnet18/pskd", "epoch_time"),
                ours(27.0, images=None, exclusive=False),
                EPOCH,
                table_of(EPOCH),
            ),
            "not exclusive",
        ),
        (
            lambda: judge(
                printed("table3", "resnet18/blocks2-3", "train_time"),
                ours(9.0, images=None),
                TRAINING,
                table_of(TRAINING),
            ),
            r"not exclusive \(published: shared GPU\)",
        ),
    ],
)
def test_what_cannot_be_compared_says_why(case, reason):
    verdict, because = case()
    assert verdict == "not comparable"
    assert re.search(reason, because)


def test_a_comparison_counts_its_verdicts_and_keeps_every_row(database):
    tables = gather(database, vs_paper=True).tables
    table, beside = one(tables, "table1"), one(tables, "table1-vs-paper")
    assert len(beside.rows) == len(table.rows) * len(table.columns)
    verdicts = Counter(row.entries[-1].text for row in beside.rows)
    for verdict in VERDICTS:
        assert verdicts[verdict] == 0 or f"{verdicts[verdict]} {verdict}" in beside.caption
    assert "match" in verdicts or "within noise" in verdicts
    notes = dict(beside.footnotes)
    for row in beside.rows:
        assert isinstance(row, Row)
        assert (row.entries[-1].text == "not comparable") == bool(row.entries[-1].notes)
        assert all(mark in notes for mark in row.entries[-1].notes)


def test_tables_without_published_values_are_not_compared(database):
    tables = {table.name: table for table in gather(database).tables}
    assert compare(tables["fidelity"]) is None and compare(tables["interactions"]) is None
