// Tables: filter, hide, group, sort, tick two rows, copy and save what is in sight.

/** Open up one table of the page; `table` is its data, its rows stand in the page already. */
class TableView {
  constructor(table, section) {
    this.table = table;
    this.section = section;
    this.element = section.querySelector("table");
    this.head = this.element.tHead.rows[0];
    const rows = table.groups.flatMap((group) => group.rows.map((row) => ({ ...row, group: group.title, groupLatex: group.latex })));
    const lines = [...this.element.querySelectorAll("tbody tr:not(.group)")];
    this.rows = rows.map((row, place) => ({ ...row, place, line: lines[place], cellsOf: [...new Set(row.trials.map((trial) => data.trials[trial].cell))] }));
    for (const row of this.rows) row.text = [row.group, ...row.labels.map((label) => label.text), ...row.cellsOf.flatMap((cell) => data.fields.map((name) => data.cells[cell].config[name] ?? "")), ...row.trials.map((trial) => data.trials[trial].state)].join(" ").toLowerCase();
    this.columns = [...table.stub, ...table.columns.map((column) => (column.group ? `${column.group}: ` : "") + column.title)];
    // A field with one value, or with one for each row, makes no groups.
    this.fields = data.fields.filter((name) => {
      const { size } = new Set(this.rows.map((row) => this.valueOf(row, name)));
      return size > 1 && size < this.rows.length;
    });
    this.comparable = this.rows.filter((row) => row.cells.some((cell, place) => cell.samples.length && measured(table.columns[place]))).length > 1;
    this.build();
    this.show();
  }

  key(name) {
    return `${this.table.id}.${name}`;
  }

  /** Return what a row's trials have in a field, all values where they differ. */
  valueOf(row, field) {
    return [...new Set(row.cellsOf.map((cell) => data.cells[cell].config[field] ?? "–"))].join(", ") || "–";
  }

  build() {
    if (this.comparable) this.addTicks();
    for (const row of this.rows) {
      row.cells.forEach((cell, place) => {
        if (cell.samples.length || cell.absent.length) this.openable(row.line.cells[this.offset + this.table.stub.length + place], row, place);
      });
      if (row.trials.length) this.openable(row.line.cells[this.offset], row, -1);
    }
    for (const stop of this.stops()) stop.tabIndex = -1;
    this.element.addEventListener("keydown", (event) => this.move(event));
    this.element.addEventListener("focusin", (event) => this.stopAt(event.target));
    // What is inside scrolls into sight by itself.
    this.section.querySelector(".wide").removeAttribute("tabindex");
    [...this.head.cells].forEach((cell, place) => {
      const button = cell.querySelector("button");
      if (button) button.addEventListener("click", () => this.sortBy(place - this.offset));
    });
    const filter = element("input", { type: "search", placeholder: "Filter rows", "aria-label": `Filter rows of ${this.table.title}`, value: view.get(this.key("filter")), input: () => this.change("filter", filter.value) });
    this.count = element("span", { class: "soft", role: "status" });
    const columns = this.columns.map((title, place) => tick(title, !this.hidden.has(place), (checked) => this.hide(place, checked)));
    const printed = this.table.groups.length > 1 ? [["none", "nothing"]] : [];
    const grouping = [["", "as printed"], ...printed, ...this.fields.map((name) => [name, words(name)])];
    const kept = (form, does) => element("button", { type: "button", click: () => does(form === "LaTeX" ? this.latex() : this.csv(), form) }, does === copy ? `Copy as ${form}` : `Save as ${form}`);
    const saved = (text, form) => save(text, `${this.table.id}.${form === "LaTeX" ? "tex" : "csv"}`);
    this.section.querySelector(".wide").before(
      element(
        "div",
        { class: "tools", role: "group", "aria-label": `Tools for ${this.table.title}` },
        filter,
        grouping.length > 1 ? choice("Group by", grouping, view.get(this.key("group")), (value) => this.change("group", value)) : null,
        menu("Columns", ...columns),
        menu("Copy, save", kept("CSV", copy), kept("LaTeX", copy), kept("CSV", saved), kept("LaTeX", saved)),
        this.count,
      ),
    );
    this.panel = element("div", { class: "comparison", "aria-live": "polite" });
    this.section.querySelector(".wide").after(this.panel);
  }

  /** A box before every row: two ticked rows are compared. */
  addTicks() {
    this.offset = 1;
    this.head.prepend(element("td", { class: "pick" }, element("span", { class: "away" }, "Compare")));
    const ticked = this.picked();
    for (const row of this.rows) {
      const box = element("input", { type: "checkbox", "aria-label": `Compare ${this.nameOf(row)}`, change: () => this.pick(row, box.checked) });
      box.checked = ticked.includes(row);
      row.box = box;
      row.line.prepend(element("td", { class: "pick" }, box));
    }
    for (const cell of this.element.querySelectorAll("th.group")) cell.colSpan += 1;
  }

  /** Make a cell's content a button that opens the trials behind it. */
  openable(cell, row, place) {
    const what = place < 0 ? "all its trials" : this.columns[this.table.stub.length + place];
    const button = element("button", { type: "button", class: "open", "aria-haspopup": "dialog", "aria-label": `${cell.textContent.trim()}: ${what} of ${this.nameOf(row)}`, click: () => openTrials(this, row, place) });
    button.append(...cell.childNodes);
    cell.append(button);
    cell.classList.add("opens");
  }

  nameOf(row) {
    return [row.group, ...row.labels.slice(0, this.table.named).map((label) => label.text)].filter(Boolean).join(", ");
  }

  get hidden() {
    return new Set(view.list(this.key("hide")).map(Number));
  }

  picked() {
    const keys = view.list(this.key("pick"));
    return keys.map((key) => this.rows.find((row) => row.key === key)).filter(Boolean);
  }

  change(name, value) {
    view.set(this.key(name), value);
    this.show();
  }

  hide(place, visible) {
    const hidden = this.hidden;
    if (visible) hidden.delete(place);
    else hidden.add(place);
    view.set(this.key("hide"), [...hidden].map(String));
    this.show();
  }

  sortBy(place) {
    const rising = `${place}+`, falling = `${place}-`;
    const now = view.get(this.key("sort"));
    this.change("sort", now === rising ? falling : now === falling ? "" : rising);
  }

  /** Keep the two rows ticked last. */
  pick(row, ticked) {
    let rows = this.picked().filter((other) => other !== row);
    if (ticked) rows = [...rows, row].slice(-2);
    for (const each of this.rows) each.box.checked = rows.includes(each);
    view.set(this.key("pick"), rows.map((each) => each.key));
    this.show();
  }

  /** Return what a row is sorted by in a column: a number, a text, or null where there is nothing. */
  sortKey(row, place) {
    if (place < this.table.stub.length) return row.labels[place].text;
    const cell = row.cells[place - this.table.stub.length];
    return cell.value !== null ? cell.value : cell.kind === "text" ? cell.number : null;
  }

  /** Return the rows in sight in their order, in groups [title, rows]. */
  arranged() {
    const parts = view.get(this.key("filter")).toLowerCase().split(/\s+/).filter(Boolean);
    const rows = this.rows.filter((row) => parts.every((part) => row.text.includes(part)));
    const by = view.get(this.key("group"));
    const groups = new Map();
    for (const row of rows) {
      const title = by === "none" ? "" : by ? `${words(by)}: ${this.valueOf(row, by)}` : row.group;
      if (!groups.has(title)) groups.set(title, []);
      groups.get(title).push(row);
    }
    const sort = view.get(this.key("sort"));
    const place = parseInt(sort, 10), falling = sort.endsWith("-");
    if (place in this.columns) {
      for (const group of groups.values()) {
        group.sort((one, two) => {
          const a = this.sortKey(one, place), b = this.sortKey(two, place);
          // What has no number stays last, whichever way the others go.
          if (a === null || b === null) return (a === null) - (b === null);
          const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
          return falling ? -order : order;
        });
      }
    }
    return [...groups];
  }

  /** Put the rows into the page as the view asks for. */
  show() {
    const groups = this.arranged(), hidden = this.hidden, width = this.columns.length - hidden.size + this.offset;
    // Rows that move lose the focus.
    const focused = this.element.contains(document.activeElement) ? document.activeElement : null;
    for (const body of [...this.element.tBodies]) body.remove();
    for (const [title, rows] of groups) {
      const body = element("tbody");
      if (title) body.append(element("tr", { class: "group" }, element("th", { class: "group", scope: "rowgroup", colspan: width }, element("span", {}, title))));
      body.append(...rows.map((row) => row.line));
      this.element.append(body);
    }
    const sort = view.get(this.key("sort"));
    [...this.head.cells].forEach((cell, index) => {
      const place = index - this.offset;
      cell.removeAttribute("aria-sort");
      if (sort && place === parseInt(sort, 10)) cell.setAttribute("aria-sort", sort.endsWith("-") ? "descending" : "ascending");
      cell.hidden = hidden.has(place);
    });
    for (const row of this.rows) [...row.line.cells].forEach((cell, index) => (cell.hidden = hidden.has(index - this.offset)));
    const shown = groups.reduce((sum, [, rows]) => sum + rows.length, 0);
    const ticked = this.picked();
    const hint = this.comparable && ticked.length < 2 ? (ticked.length ? "Tick a second row to compare." : "Tick two rows to compare them.") : "";
    this.count.replaceChildren(shown < this.rows.length ? `${shown} of ${this.rows.length} rows. ` : "", element("span", { class: "hint" }, hint));
    for (const row of this.rows) row.line.classList.toggle("picked", ticked.includes(row));
    if (focused?.isConnected) focused.focus({ preventScroll: true });
    const inSight = this.stops().filter((stop) => !stop.closest("th, td").hidden);
    this.stopAt(inSight.includes(this.current) ? this.current : inSight[0]);
    this.panel.replaceChildren(...(ticked.length === 2 ? comparison(this, ...ticked) : []));
  }

  /** Return whatever can be used in the table: headings, boxes and cells. */
  stops() {
    return [...this.element.querySelectorAll("thead button, td.pick input, button.open")];
  }

  /** Have the Tab key stop here, the one place of the table where it does; arrow keys go on from there. */
  stopAt(stop) {
    if (this.current) this.current.tabIndex = -1;
    this.current = stop;
    if (stop) stop.tabIndex = 0;
  }

  /** Go from cell to cell by arrow keys, over those where nothing can be done. */
  move(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (!steps[event.key] || !event.target.closest("th, td")) return;
    const lines = [...this.element.querySelectorAll("thead tr, tbody tr:not(.group)")];
    let line = lines.indexOf(event.target.closest("tr")), place = event.target.closest("th, td").cellIndex;
    const [down, right] = steps[event.key];
    for (;;) {
      line += down;
      place += right;
      const cell = lines[line]?.cells[place];
      if (!cell) return;
      const stop = cell.hidden ? null : cell.querySelector("button, input");
      if (stop) {
        event.preventDefault();
        stop.focus();
        return;
      }
    }
  }

  /** Return the places of the columns in sight. */
  visible() {
    return this.columns.map((_, place) => place).filter((place) => !this.hidden.has(place));
  }

  csv() {
    const quote = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const stub = this.table.stub.length, places = this.visible(), lines = [];
    const heads = places.flatMap((place) => {
      const name = this.columns[place];
      if (place < stub) return [name];
      const { unit, form } = this.table.columns[place - stub];
      // Minutes and seconds are one number here.
      const behind = form === "minutes" ? " (s)" : unit ? ` (${unit})` : "";
      return [name + behind, ...(this.spreads(place) ? [`${name} spread${behind}`] : []), ...(this.marked(place) ? [`${name} marks`] : [])];
    });
    lines.push([this.table.group_head, ...heads]);
    for (const [title, rows] of this.arranged()) {
      for (const row of rows) {
        const values = places.flatMap((place) => {
          if (place < stub) return [row.labels[place].text];
          const cell = row.cells[place - stub];
          const number = cell.value === null ? (cell.kind === "empty" ? "" : cell.number) : String(cell.value);
          return [number, ...(this.spreads(place) ? [cell.spread] : []), ...(this.marked(place) ? [cell.marks] : [])];
        });
        lines.push([title, ...values]);
      }
    }
    return lines.map((line) => line.map(quote).join(",") + "\r\n").join("");
  }

  spreads(place) {
    return place >= this.table.stub.length && this.rows.some((row) => row.cells[place - this.table.stub.length].spread);
  }

  /** Return whether any number of a column has a mark: the star of a shared device, or a footnote's. */
  marked(place) {
    return place >= this.table.stub.length && this.rows.some((row) => row.cells[place - this.table.stub.length].marks);
  }

  /** Return the rows in sight as a LaTeX tabular; texts and numbers are those of the report's own file. */
  latex() {
    const stub = this.table.stub.length, places = this.visible();
    const sides = places.map((place) => (place < stub || this.table.columns[place - stub].form === "text" ? "l" : "r")).join("");
    const heads = places.map((place) => (place < stub ? this.table.stub_latex[place] : this.table.columns[place - stub].latex));
    const lines = [`% ${this.table.id}, as shown by report.html. Needs \\usepackage{booktabs,threeparttable}.`, "\\begin{threeparttable}", `\\begin{tabular}{${sides}}`, "\\toprule", `${heads.join(" & ")} \\\\`, "\\midrule"];
    this.arranged().forEach(([title, rows], index) => {
      const latex = view.get(this.key("group")) ? title.replace(/[&%$#_{}]/g, "\\$&") : rows[0].groupLatex;
      if (index) lines.push("\\midrule");
      if (title) lines.push(`\\multicolumn{${places.length}}{l}{\\textit{${latex}}} \\\\`);
      for (const row of rows) lines.push(`${places.map((place) => (place < stub ? row.latex[place] : row.cells[place - stub].latex)).join(" & ")} \\\\`);
    });
    const shown = this.arranged().flatMap(([, rows]) => rows.flatMap((row) => places.filter((place) => place >= stub).flatMap((place) => row.cells[place - stub].marks.split(","))));
    const notes = this.table.notes_latex.filter(([mark]) => shown.includes(mark)).map(([, note]) => note);
    return [...lines, "\\bottomrule", "\\end{tabular}", ...(notes.length ? ["\\begin{tablenotes}", ...notes, "\\end{tablenotes}"] : []), "\\end{threeparttable}", ""].join("\n");
  }
}
TableView.prototype.offset = 0;

/** Return whether a column holds measurements: what is a difference, a p-value or a text already is not compared. */
function measured(column) {
  return column.form === "number" || column.form === "minutes";
}

const TESTS = {
  paired: (found) => `paired t test over ${found.n} seeds`,
  images: (found) => `exact test over ${found.images.toLocaleString("en")} images, paired (${found.n === 1 ? "one seed" : `${found.n} seeds`})`,
  unpaired: (found) => `binomial noise of ${found.images.toLocaleString("en")} images (${found.n === 1 ? "one seed" : `${found.n} seeds`})`,
  equal: (found) => `no test: the differences of ${found.n} seeds are equal, without scatter`,
  untested: (found) => `the test over images was left out of this page for its size; this does it, with the database's --db: ${found.command}`,
  none: (found) => `no test: ${found.n === 1 ? "one seed" : `${found.n} seeds`}, and three are needed`,
};

/** Return the comparison of two ticked rows: differences by the report's test, and the fields that differ. */
function comparison(shown, first, second) {
  const { table } = shown;
  const given = new Map((table.comparisons ?? []).map(([one, two, column, ...rest]) => [`${one} ${two} ${column}`, rest]));
  const lines = [];
  table.columns.forEach((column, place) => {
    const [one, two] = [first.cells[place], second.cells[place]];
    const found = measured(column) ? compareEntries(one, two) : null;
    if (!found) return;
    for (const [sign, key] of [[1, `${first.place} ${second.place} ${place}`], [-1, `${second.place} ${first.place} ${place}`]]) {
      if (given.has(key)) {
        const [p, difference, margin, n, images] = given.get(key);
        Object.assign(found, { test: "images", p, difference: sign * difference, margin, n, images });
      }
    }
    // The outcomes per image are kept, so binomial noise would be another test than the report's.
    const untested = table.untested[place] ?? [];
    if (found.test === "unpaired" && untested.includes(first.place) && untested.includes(second.place)) {
      const [one, two] = [first, second].map((row) => `'${table.id}:${row.key}/${column.key}'`);
      Object.assign(found, { test: "untested", p: null, margin: null, command: `orchestrate compare ${one} ${two}` });
    }
    const digits = column.form === "minutes" ? 0 : column.digits + 1;
    const unit = column.form === "minutes" ? " s" : { "%": " points", s: " s" }[column.unit] ?? "";
    const sign = found.difference > 0 ? "+" : "";
    const better = column.direction && found.difference !== 0 ? ((found.difference < 0) === (column.direction === "lower") ? "first" : "second") : null;
    const starred = one.marks.startsWith("*") || two.marks.startsWith("*");
    const verdict = starred ? "the device was shared" : found.test === "untested" ? "not tested here" : found.p === null ? "not tested" : found.p < 0.05 ? (better ? `${better} is better` : "they differ") : "cannot be told apart";
    // Of a normal approximation: with two rates of 0 or 100 %, or images that all agree, it has no width.
    const pointlike = found.margin === 0;
    const interval = found.margin === null || pointlike ? "–" : `${fixed(found.difference - found.margin, digits)} to ${fixed(found.difference + found.margin, digits)}`;
    lines.push(
      element("tr", { class: verdict.endsWith("better") || verdict === "they differ" ? "told" : "" },
        element("th", { scope: "row" }, shown.columns[table.stub.length + place]),
        element("td", {}, one.number), element("td", {}, two.number),
        element("td", {}, `${sign}${fixed(found.difference, digits)}${unit}`), element("td", {}, interval),
        element("td", {}, found.p === null ? "–" : found.p < 0.001 ? "<0.001" : found.p.toFixed(3)),
        element("td", { class: "text" }, verdict), element("td", { class: "text soft" }, TESTS[found.test](found) + (pointlike ? "; no interval, as nothing scatters" : ""))),
    );
  });
  const names = [...new Set([...first.cellsOf, ...second.cellsOf].flatMap((cell) => Object.keys(data.cells[cell].config)))];
  const fields = names.filter((name) => shown.valueOf(first, name) !== shown.valueOf(second, name));
  const heads = ["", "First", "Second", "First − second", "95 % interval", "p", "At the 5 % level", "By"];
  return [
    element("h3", {}, "Two rows compared"),
    element("p", {}, element("b", {}, "First: "), shown.nameOf(first), element("br"), element("b", {}, "Second: "), shown.nameOf(second)),
    lines.length
      ? element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Differences" }, element("table", { class: "differences" }, element("thead", {}, element("tr", {}, ...heads.map((head, place) => element("th", { scope: "col", class: place > 5 ? "text" : null }, head)))), element("tbody", {}, ...lines)))
      : element("p", {}, "They have no numbers in common."),
    element("p", { class: "soft" }, "One pair on its own, by the report's test. Who picks the best of several rows should read the bold numbers instead: they allow for the choice."),
    fields.length
      ? element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Fields that differ" }, element("table", { class: "differing" }, element("thead", {}, element("tr", {}, element("th", { scope: "col", class: "text" }, "What differs"), element("th", { scope: "col", class: "text" }, "First"), element("th", { scope: "col", class: "text" }, "Second"))), element("tbody", {}, ...fields.map((name) => element("tr", {}, element("th", { scope: "row" }, words(name)), element("td", { class: "text" }, shown.valueOf(first, name)), element("td", { class: "text" }, shown.valueOf(second, name)))))))
      : element("p", {}, "Their trials have the same configurations."),
    element("button", { type: "button", click: () => { for (const row of [first, second]) shown.pick(row, false); } }, "Clear"),
  ];
}
