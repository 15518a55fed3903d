// What the page draws: curves over epochs or seconds, one quantity against another, and fields as parallel axes.

/** Return the first grid with results: configurations of several grids have little in common. */
function firstGrid() {
  const begun = (grid) => grid.cells.some((cell) => data.cells[cell].trials.some((trial) => data.trials[trial].epochs));
  return (data.grids.find(begun) ?? data.grids[0]).name;
}

/** Return the cells that are shown: of the grid that was chosen, or of all. */
function cellsOf(key) {
  const grid = data.grids.find((each) => each.name === view.get(key, firstGrid()));
  return grid ? grid.cells : data.cells.map((_, place) => place);
}

/** Return the view's zoom of a chart, [x0, x1, y0, y1] or null, and what sets it. */
function zoomOf(key, redraw) {
  const numbers = view.get(`${key}.zoom`).split(",").map(Number);
  const zoom = numbers.length === 4 && numbers.every(Number.isFinite) ? numbers : null;
  return { zoom, zoomed: (to) => { view.set(`${key}.zoom`, to ? to.map((each) => each.toPrecision(5)).join(",") : ""); redraw(); } };
}

function grids(key, redraw) {
  if (data.grids.length < 2) return null;
  const named = data.grids.map((grid) => [grid.name, grid.name]);
  return choice("Grid", [...named, ["", "all"]], view.get(key, firstGrid()), (value) => { view.set(key, value, firstGrid()); redraw(true); });
}

function section(id, title, caption) {
  const made = element("section", { id, class: "explore" }, element("h2", {}, title), element("p", { class: "caption" }, caption));
  return made;
}

/** Return whether any configuration was trained with several seeds. */
function severalSeeds() {
  return data.cells.some((cell) => cell.trials.length > 1);
}

// Lines that are drawn before a reader chooses.
const FIRST_LINES = 8;

/** Curves: any series over epochs or seconds, means with bands over seeds. */
function curvesSection() {
  const { series, lines, every } = data.curves;
  if (!lines.some(Boolean)) return null;
  const thinned = every > 1 ? ` To keep this file small, of ${every} epochs one is drawn: the last one and, counting back, each ${every}th; tables use all of them.` : "";
  const made = section("explore-curves", "Curves", `${severalSeeds() ? "Mean over seeds after each epoch; the band is ± one standard deviation." : "A line per configuration, of one seed."}${thinned}`);
  const tools = element("div", { class: "tools", role: "group", "aria-label": "Tools for curves" });
  const chart = element("div", { class: "chart" });
  const legend = element("fieldset", { class: "legend" }), count = element("legend", {});
  made.append(tools, element("div", { class: "split" }, chart, legend));
  let filter = "";

  const draw = (again = false) => {
    const chosen = view.get("curves.metric", series[0].key);
    const place = Math.max(0, series.findIndex((each) => each.key === chosen));
    const { title, unit } = series[place];
    const seconds = view.get("curves.x") === "seconds", single = view.get("curves.seeds") === "single", log = view.get("curves.log") === "yes";
    const begun = cellsOf("curves.grid").filter((cell) => data.cells[cell].trials.some((trial) => lines[trial]?.series[place]));
    const names = labels(begun.map((cell) => data.cells[cell]));
    const wanted = view.list("curves.lines");
    const shown = wanted.length ? begun.filter((cell) => wanted.includes(String(cell))) : begun.slice(0, FIRST_LINES);
    const drawn = begun.map((cell, at) => [cell, at]).filter(([cell]) => shown.includes(cell)).flatMap(([cell, at]) => curvesOf(cell, names[at], place, { seconds, single, unit }));
    drawChart(chart, {
      lines: drawn, empty: shown.length ? undefined : "No line is ticked.", label: `${title} over ${seconds ? "seconds" : "epochs"}, ${shown.length} lines.`,
      x: { title: seconds ? "Time since the start (s)" : "Epoch", whole: !seconds }, y: { title: unit ? `${title} (${unit})` : title, log },
      ...zoomOf("curves", draw),
    });
    count.textContent = `Lines (${shown.length} of ${begun.length} shown)`;
    if (!again && legend.childElementCount) return;
    // Ticks that are not in sight, filtered away or of another metric, stay as they are.
    const turn = (cells, on) => {
      const before = view.list("curves.lines"), now = new Set(before.length ? before.filter((each) => each !== "none") : begun.slice(0, FIRST_LINES).map(String));
      for (const cell of cells) now[on ? "add" : "delete"](String(cell));
      view.set("curves.lines", now.size ? [...now] : ["none"]);
      draw();
    };
    const matches = (at) => names[at].toLowerCase().includes(filter.toLowerCase());
    const boxes = begun.map((cell, at) => {
      const box = tick("", shown.includes(cell), (checked) => turn([cell], checked));
      box.lastChild.append(swatch(cell), names[at]);
      box.hidden = !matches(at);
      return box;
    });
    const search = element("input", { type: "search", placeholder: "Filter lines", "aria-label": "Filter lines", value: filter, input: () => {
      filter = search.value;
      boxes.forEach((box, at) => (box.hidden = !matches(at)));
    } });
    const listed = (on) => () => {
      for (const box of boxes) if (!box.hidden) box.querySelector("input").checked = on;
      turn(begun.filter((_, at) => !boxes[at].hidden), on);
    };
    legend.replaceChildren(count, begun.length > FIRST_LINES ? search : "", element("div", { class: "boxes" }, ...boxes), element("button", { type: "button", click: listed(true) }, "All"), element("button", { type: "button", click: listed(false) }, "None"));
  };
  const set = (key, otherwise = "", again = false) => (value) => {
    view.set(key, value, otherwise);
    view.set("curves.zoom", "");
    draw(again);
  };
  const grid = grids("curves.grid", (again) => { view.set("curves.lines", ""); view.set("curves.zoom", ""); draw(again); });
  tools.append(
    ...[grid].filter(Boolean),
    choice("Metric", series.map((each) => [each.key, each.title]), view.get("curves.metric", series[0].key), set("curves.metric", series[0].key, true)),
    choice("Over", [["", "epochs"], ["seconds", "seconds"]], view.get("curves.x"), set("curves.x")),
    tick("Logarithmic", view.get("curves.log") === "yes", (checked) => set("curves.log")(checked ? "yes" : "")),
    severalSeeds() ? tick("Single seeds", view.get("curves.seeds") === "single", (checked) => set("curves.seeds")(checked ? "single" : "")) : "",
  );
  made.draw = draw;
  return made;
}

/** Return the lines of a cell: its mean with a band, or a line for each seed. */
function curvesOf(cell, name, place, { seconds, single, unit }) {
  const trials = data.cells[cell].trials.filter((trial) => data.curves.lines[trial]?.series[place]);
  const behind = unit === "%" ? " %" : "";
  if (single) {
    return trials.map((trial) => {
      const line = data.curves.lines[trial];
      const points = line.series[place].map((value, index) => [seconds ? line.seconds[index] : line.epochs[index], value, `${name}, seed ${data.trials[trial].seed}, epoch ${line.epochs[index]} (${duration(line.seconds[index])}): ${short(value)}${behind}`]);
      return { name: `${name}, seed ${data.trials[trial].seed}`, style: styles[cell], points: points.filter(([, value]) => value !== null) };
    });
  }
  const epochs = new Map();
  for (const trial of trials) {
    const line = data.curves.lines[trial];
    line.series[place].forEach((value, index) => {
      if (value === null) return;
      if (!epochs.has(line.epochs[index])) epochs.set(line.epochs[index], []);
      epochs.get(line.epochs[index]).push([value, line.seconds[index]]);
    });
  }
  const order = [...epochs].sort(([one], [two]) => one - two);
  const summed = order.map(([epoch, found]) => {
    const values = found.map(([value]) => value), time = mean(found.map(([, second]) => second));
    return [seconds ? time : epoch, mean(values), deviation(values), values.length, epoch, time];
  });
  return [{
    name, style: styles[cell],
    points: summed.map(([x, y, spread, n, epoch, time]) => [x, y, `${name}, epoch ${epoch} (${duration(time)}): ${short(y)}${n > 1 ? ` ± ${short(spread)}` : ""}${behind}, ${n === 1 ? "one seed" : `${n} seeds`}`]),
    band: summed.filter(([, , , n]) => n > 1).map(([x, y, spread]) => [x, y - spread, y + spread]),
  }];
}

function swatch(cell) {
  const { colour, dash } = styles[cell];
  return element("svg", { width: 26, height: 10, "aria-hidden": "true", class: "swatch" }, element("line", { x1: 1, x2: 25, y1: 5, y2: 5, stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash }));
}

/**
 * Return a cell's mean of a quantity, its spread, the number of its trials that have it, and whether one of these shared
 * its device meanwhile; null without any. As in tables, a time per epoch is of the trials of a timing pass alone, if any.
 */
function quantityOf(cell, key) {
  const all = data.cells[cell].trials.map((trial) => data.trials[trial]);
  const timed = key === "epoch_time" ? all.filter((trial) => trial.timed) : [];
  const trials = (timed.length ? timed : all).filter((trial) => trial.values[key] !== undefined);
  const values = trials.map((trial) => trial.values[key]);
  return values.length ? { mean: mean(values), spread: deviation(values), n: values.length, shared: trials.some((trial) => trial.shared.includes(key)) } : null;
}

/** One quantity against another, a point per configuration, with the Pareto front: Figure 2 where they are time and error. */
function planeSection() {
  const keys = data.quantities.map((each) => each.key);
  if (keys.length < 2 || data.cells.length < 2) return null;
  const firstX = keys.includes("epoch_time") ? "epoch_time" : keys[1], firstY = keys[0];
  const made = section("explore-plane", "Trade-offs", `A point per configuration${severalSeeds() ? ", the mean over seeds" : ""}. ${data.selection} Dashed: the Pareto front, which nothing beats in both. Hollow: the device was shared while it was timed; such a point is never on the front.`);
  const tools = element("div", { class: "tools", role: "group", "aria-label": "Tools for one quantity against another" });
  const chart = element("div", { class: "chart" });
  made.append(tools, chart);
  const draw = () => {
    const [keyX, keyY] = [view.get("plane.x", firstX), view.get("plane.y", firstY)].map((key, at) => (keys.includes(key) ? key : [firstX, firstY][at]));
    const [x, y] = [keyX, keyY].map((key) => data.quantities.find((each) => each.key === key));
    const cells = cellsOf("plane.grid").filter((cell) => quantityOf(cell, keyX) && quantityOf(cell, keyY));
    const names = labels(cells.map((cell) => data.cells[cell]));
    const axis = (column) => ({ title: column.form === "minutes" ? `${column.title} (s)` : column.unit ? `${column.title} (${column.unit})` : column.title });
    const points = cells.map((cell, at) => {
      const [one, two] = [quantityOf(cell, keyX), quantityOf(cell, keyY)];
      const hollow = one.shared || two.shared;
      return {
        name: names[at], style: styles[cell], x: one.mean, y: two.mean, bar: two.n > 1 ? two.spread : 0, hollow,
        text: `${names[at]}: ${x.title} ${short(one.mean)}${x.unit && x.form !== "minutes" ? ` ${x.unit}` : ""}, ${y.title} ${short(two.mean)}${y.unit ? ` ${y.unit}` : ""}${two.n > 1 ? ` ± ${short(two.spread)}` : ""}${hollow ? ", device shared" : ""}`,
      };
    });
    // Towards zero on both axes is better, whichever way the quantities are counted.
    const [signX, signY] = [x, y].map((column) => (column.direction === "higher" ? -1 : 1));
    const front = [];
    for (const point of points.filter((each) => !each.hollow).sort((p, q) => signX * (p.x - q.x) || signY * (p.y - q.y))) {
      if (!front.length || signY * point.y < signY * front.at(-1)[1]) front.push([point.x, point.y, point.name]);
    }
    const spread = points.map((point) => point.x);
    const log = Math.min(...spread) > 0 && Math.max(...spread) / Math.min(...spread) > 3;
    drawChart(chart, { points, front, x: { ...axis(x), log }, y: axis(y), label: `${y.title} against ${x.title}, ${points.length} configurations. On the front: ${front.map(([, , name]) => name).join("; ")}.`, ...zoomOf("plane", draw) });
    chart.append(element("p", { class: "soft front-names" }, front.length > 1 ? `On the Pareto front: ${front.map(([, , name]) => name).join("; ")}.` : ""));
  };
  const set = (key, otherwise) => (value) => {
    view.set(key, value, otherwise);
    view.set("plane.zoom", "");
    draw();
  };
  const named = data.quantities.map((each) => [each.key, each.title]);
  tools.append(...[grids("plane.grid", () => { view.set("plane.zoom", ""); draw(); }), choice("Across", named, view.get("plane.x", firstX), set("plane.x", firstX)), choice("Up", named, view.get("plane.y", firstY), set("plane.y", firstY))].filter(Boolean));
  made.draw = draw;
  return made;
}

/** Fields as parallel axes, a line per configuration, the last axis a quantity. */
function fieldsSection() {
  if (data.fields.length < 2 || !data.quantities.length) return null;
  const made = section("explore-fields", "Fields side by side", "A line per configuration through its values; the colour follows the last axis. Choose values to keep the lines that pass through them.");
  const tools = element("div", { class: "tools", role: "group", "aria-label": "Tools for fields side by side" });
  const chart = element("div", { class: "chart parallel" });
  const readout = element("p", { class: "readout", role: "status", "aria-live": "polite" }, "Point at a line to read it.");
  made.append(tools, element("div", { class: "wide" }, chart), readout);
  const keys = data.quantities.map((each) => each.key);
  const draw = () => {
    const key = keys.includes(view.get("fields.metric")) ? view.get("fields.metric") : keys[0];
    const quantity = data.quantities.find((each) => each.key === key);
    const cells = cellsOf("fields.grid").filter((cell) => quantityOf(cell, key));
    const fields = differing(cells.map((cell) => data.cells[cell]));
    chart.replaceChildren();
    if (fields.length < 2) {
      chart.append(element("p", { class: "soft" }, "Fewer than two fields differ between these configurations."));
      return;
    }
    const kept = new Map(view.list("fields.keep").map((each) => [each.slice(0, each.indexOf("=")), each.slice(each.indexOf("=") + 1)]));
    const axes = fields.map((name) => ({ name, values: [...new Set(cells.map((cell) => data.cells[cell].config[name] ?? "–"))].sort((p, q) => p.localeCompare(q, "en", { numeric: true })) }));
    const step = Math.max(130, (Math.max(320, chart.parentElement.clientWidth) - 190) / axes.length), width = step * axes.length + 190;
    const most = Math.max(...axes.map((axis) => axis.values.length)), height = Math.max(280, Math.min(620, 26 * most + 70)), top = 40, bottom = height - 20;
    const found = cells.map((cell) => quantityOf(cell, key).mean), low = Math.min(...found), high = Math.max(...found);
    const yOf = (place, count) => (count === 1 ? (top + bottom) / 2 : top + (place / (count - 1)) * (bottom - top));
    const lastX = 20 + step * axes.length, lastY = (value) => (high === low ? (top + bottom) / 2 : bottom - ((value - low) / (high - low)) * (bottom - top));
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `${fields.map(words).join(", ")} and ${quantity.title}, ${cells.length} configurations` });
    const names = labels(cells.map((cell) => data.cells[cell]));
    const lines = element("g");
    svg.append(lines);
    cells.forEach((cell, at) => {
      const config = data.cells[cell].config, value = found[at];
      const passes = [...kept].every(([name, wanted]) => (config[name] ?? "–") === wanted);
      const places = axes.map((axis, place) => [20 + step * place, yOf(axis.values.indexOf(config[axis.name] ?? "–"), axis.values.length)]);
      const share = high === low ? 0.5 : (value - low) / (high - low);
      const text = `${names[at]}: ${quantity.title} ${short(value)}${quantity.unit && quantity.form !== "minutes" ? ` ${quantity.unit}` : ""}`;
      const line = element("path", { class: passes ? "line" : "line dropped", d: `M${[...places, [lastX, lastY(value)]].map((place) => place.map((each) => each.toFixed(1)).join(",")).join("L")}`, stroke: `color-mix(in oklab, #c4561b ${(100 * share).toFixed(0)}%, #1f77b4)`, "data-line": names[at] }, element("title", {}, text));
      line.addEventListener("pointerenter", () => { readout.textContent = text; line.classList.add("on"); });
      line.addEventListener("pointerleave", () => line.classList.remove("on"));
      lines.append(line);
    });
    axes.forEach((axis, place) => {
      const at = 20 + step * place;
      svg.append(element("line", { class: "axis", x1: at, x2: at, y1: top, y2: bottom }), element("text", { class: "name", x: at, y: 16, "text-anchor": place ? "middle" : "start" }, words(axis.name)));
      axis.values.forEach((value, index) => {
        const on = kept.get(axis.name) === value;
        const turn = () => {
          if (on) kept.delete(axis.name);
          else kept.set(axis.name, value);
          view.set("fields.keep", [...kept].map(([name, each]) => `${name}=${each}`));
          draw();
          const again = [...chart.querySelectorAll("[data-value]")].find((each) => each.dataset.value === `${axis.name}=${value}`);
          again?.focus();
        };
        const label = value.length > 22 ? `${value.slice(0, 21)}…` : value;
        svg.append(element("text", { class: on ? "value on" : "value", x: at + 6, y: yOf(index, axis.values.length) + 4, role: "button", tabindex: "0", "aria-pressed": String(on), "aria-label": `${words(axis.name)} ${value}`, "data-value": `${axis.name}=${value}`, click: turn, keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); turn(); } } }, label, element("title", {}, value)));
      });
    });
    svg.append(element("line", { class: "axis", x1: lastX, x2: lastX, y1: top, y2: bottom }), element("text", { class: "name", x: lastX, y: 16, "text-anchor": "middle" }, quantity.title));
    const numbers = high === low ? [low] : ticks(low, high, 5), write = writer(numbers);
    for (const value of numbers) svg.append(element("text", { class: "tick", x: lastX + 7, y: lastY(value) + 4 }, write(value)));
    chart.append(svg);
  };
  const grid = grids("fields.grid", () => { view.set("fields.keep", ""); draw(); });
  tools.append(...[grid, choice("Metric", data.quantities.map((each) => [each.key, each.title]), view.get("fields.metric", keys[0]), (value) => { view.set("fields.metric", value, keys[0]); draw(); })].filter(Boolean));
  made.draw = draw;
  return made;
}
