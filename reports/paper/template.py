"""Write the template of a file of published values: a line for every cell of a table, to be filled in."""

from __future__ import annotations

import csv
import io

from orchestrator.tables.references import COLUMNS
from reports.table import Table

_ABOUT = """\
# Published values for the table {name}; `orchestrate report --vs-paper` compares them with ours.
# Give the table `reference: {file}` in its YAML. Lines that begin with # are comments.
# row, column: the place of a value in the table. They stay; an asterisk in a row stands for any text.
# printed: the number as the source prints it: 24.18, or 24.18 \u00b1 0.30. Its decimals say when ours is the same.
#   A line without it is left out.
# value, std: only where printed does not say them in the units of the table ({units}; times in seconds).
# runs: over how many runs printed is a mean; three or more with a spread replace the noise of the test images.
# printed_row, printed_column: what the source calls the place; for readers.
# source: the paper and its table, such as Lee 2021, Table 3. It stands in the caption or in a footnote.
# recipe: fields of the configuration behind it, such as {recipe}
#   Where ours differs, the value is not compared, and a footnote says why. What all lines share may stand in the YAML:
#   reference: {{file: {file}, source: Lee 2021, recipe: {{epochs: 200}}}}
# footnote: the source's own; "shared GPU" stars a time.
# doubt: what speaks against the value, which is then shown and not compared.
"""


def template(table: Table, file: str) -> str:
    """Return the template for a table, to be saved under this name."""
    # A difference may be in print; a p-value is of our seeds.
    columns = [column for column in table.columns if column.form not in ("p", "text")]
    names = [f"{column.title} in {column.unit}" for column in columns if column.unit and column.form != "minutes"]
    units = ", ".join(dict.fromkeys(names))
    recipe = ", ".join(f"{name}: {table.fixed[name]}" for name in ("epochs", "batch_size") if name in table.fixed)
    written = io.StringIO()
    written.write(
        _ABOUT.format(name=table.name, file=file, units=units or "as printed", recipe=recipe or "epochs: 200")
    )
    out = csv.writer(written, lineterminator="\n")
    out.writerow(COLUMNS)
    for row in table.rows:
        for column in columns:
            out.writerow([row.key, column.key] + [""] * (len(COLUMNS) - 2))
    return written.getvalue()
