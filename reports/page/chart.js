// One chart, drawn as SVG by a few functions: lines with bands, points, axes, hover, keyboard and zoom.

// Mid tones that stand out from white and from a dark page alike; dashes and shapes tell what colours do not.
const COLOURS = ["#1f77b4", "#c4561b", "#2a8a57", "#9559b8", "#c23b75", "#7d7420", "#4f7d8c", "#a0522d"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "14 4", "5 2 1 2 1 2"];
const SHAPES = [
  (s) => `M${-s},0A${s},${s} 0 1 1 ${s},0A${s},${s} 0 1 1 ${-s},0Z`,
  (s) => `M${-s},${-s}H${s}V${s}H${-s}Z`,
  (s) => `M0,${-1.3 * s}L${1.2 * s},${s}H${-1.2 * s}Z`,
  (s) => `M0,${-1.4 * s}L${1.4 * s},0L0,${1.4 * s}L${-1.4 * s},0Z`,
  (s) => `M0,${1.3 * s}L${1.2 * s},${-s}H${-1.2 * s}Z`,
  (s) => `M${-s},${-s}L${s},${s}M${-s},${s}L${s},${-s}`,
  (s) => `M${-s},0H${s}M0,${-s}V${s}`,
  (s) => `M${-0.5 * s},${-s}H${0.5 * s}V${s}H${-0.5 * s}Z`,
  (s) => `M${-s},${-0.5 * s}H${s}V${0.5 * s}H${-s}Z`,
];

/**
 * Return a style for each cell: its colour is that of its methods, and its dash and its shape tell it from the other
 * cells of that colour, as long as there are enough of them. Then it gets a colour that no methods have, if any.
 */
function stylesOf(cells) {
  const numbers = (field) => new Map([...new Set(cells.map((cell) => cell.config[field]))].map((value, place) => [value, place]));
  const methods = numbers("methods"), networks = numbers("network"), taken = new Set();
  const spare = COLOURS.map((_, colour) => colour).slice(methods.size);
  return cells.map(({ config }) => {
    const own = methods.get(config.methods) % COLOURS.length, wanted = networks.get(config.network);
    // Cells of one network are alike in this, where that tells them apart.
    const pairs = [own, ...spare].flatMap((colour) => SHAPES.map((_, step) => [colour, (wanted + step) % SHAPES.length]));
    const [colour, variety] = pairs.find((pair) => !taken.has(String(pair))) ?? pairs[0];
    taken.add(String([colour, variety]));
    // Neighbours differ in more than colour.
    return { colour: COLOURS[colour], dash: DASHES[(colour + variety) % DASHES.length], shape: SHAPES[(colour + variety) % SHAPES.length] };
  });
}

/** Return how to write the numbers of an axis: with as many digits as tell them from one another. */
function writer(values) {
  for (let digits = 3; digits < 9; digits++) {
    const texts = values.map((value) => short(value, digits));
    if (new Set(texts).size === texts.length) return (value) => short(value, digits);
  }
  return short;
}

/** Return round numbers between two, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((each) => each * power >= rough) ?? 10);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9 && found.length < 100; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : Number(at.toPrecision(12)));
  return found;
}

/** Return ticks of a logarithmic axis: powers of ten, and numbers between where these are few. */
function logTicks(low, high) {
  const powers = [];
  for (let each = Math.floor(Math.log10(low)); each <= Math.ceil(Math.log10(high)); each++) powers.push(each);
  for (const steps of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]]) {
    const found = powers.flatMap((power) => steps.map((step) => Number((step * 10 ** power).toPrecision(6)))).filter((at) => at >= low && at <= high);
    if (found.length >= 4) return found;
  }
  return ticks(low, high, 5);
}

/** Return where names of points fit, [text, x, y, anchor]: beside, above or below, on no other name; the rest is left out, but for those that `must` be named. */
function places(points, must, [left, right, top, bottom]) {
  const taken = points.map(([, x, y]) => [x - 7, y - 7, x + 7, y + 7]);
  const free = (box) => box[0] >= left && box[2] <= right && box[1] >= top && box[3] <= bottom && taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
  const found = [];
  const first = points.filter(([name]) => must.has(name)), rest = points.filter(([name]) => !must.has(name));
  for (const [name, x, y] of [...first, ...rest]) {
    const text = name.length > 34 ? `${name.slice(0, 32)}…` : name;
    const width = 6.6 * text.length;
    const tried = [[x + 9, y + 4, "start"], [x - 9, y + 4, "end"], [x, y - 11, "middle"], [x, y + 19, "middle"]];
    const seen = x >= left && x <= right && y >= top && y <= bottom, last = x + 9 + width <= right ? tried[0] : tried[1];
    for (const [at, base, anchor, forced] of [...tried, ...(must.has(name) && seen ? [[...last, true]] : [])]) {
      const from = anchor === "start" ? at : anchor === "end" ? at - width : at - width / 2;
      const box = [from, base - 11, from + width, base + 3];
      if (!forced && !free(box)) continue;
      taken.push(box);
      found.push([text, at, base, anchor]);
      break;
    }
  }
  return found;
}

/**
 * Draw a chart into a container. `lines` are {name, style, points: [[x, y, text]], band: [[x, low, high]]},
 * `points` are {name, style, x, y, hollow, text, bar}, `x` and `y` {title, log, whole}. `zoom` is [x0, x1, y0,
 * y1] or null, and `zoomed` hears of a new one; `empty` is said where there is nothing. What is under the pointer, or reached by arrow keys, is named.
 */
function drawChart(container, { lines = [], points = [], front = [], empty, x, y, zoom, zoomed, label, height = 380 }) {
  const width = Math.max(280, container.clientWidth || 600);
  const room = { left: 62, right: 14, top: 12, bottom: 44 };
  const all = [...lines.flatMap((line) => [...line.points, ...(line.band ?? []).flatMap(([at, low, high]) => [[at, low], [at, high]])]), ...points.flatMap((point) => [[point.x, point.y], ...(point.bar ? [[point.x, point.y - point.bar], [point.x, point.y + point.bar]] : [])])];
  const usable = (value, axis) => value !== null && Number.isFinite(value) && (!axis.log || value > 0);
  const good = all.filter(([a, b]) => usable(a, x) && usable(b, y));
  container.replaceChildren();
  if (!good.length) {
    container.append(element("p", { class: "soft" }, empty ?? "Nothing to draw: no value is there yet for this choice."));
    return;
  }
  const extent = (values, axis) => {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    if (axis.log) return low === high ? [low / 1.5, high * 1.5] : [low / (high / low) ** 0.04, high * (high / low) ** 0.04];
    // What differs by rounding alone is one value.
    const gap = (high - low > 1e-9 * Math.abs(high) ? high - low : Math.abs(high) || 1) * 0.04;
    return [low - gap, high + gap];
  };
  const number = (value) => value !== null && Number.isFinite(value);
  // A value that a logarithmic axis cannot show still has its place along the other one.
  const [x0, x1, y0, y1] = zoom ?? [...extent(all.filter(([a, b]) => usable(a, x) && number(b)).map(([a]) => a), x), ...extent(good.map(([, b]) => b), y)];
  const scale = (low, high, from, to, log) => (log ? (value) => from + ((Math.log(value) - Math.log(low)) / (Math.log(high) - Math.log(low))) * (to - from) : (value) => from + ((value - low) / (high - low)) * (to - from));
  const back = (low, high, from, to, log) => (at) => (log ? Math.exp(Math.log(low) + ((at - from) / (to - from)) * (Math.log(high) - Math.log(low))) : low + ((at - from) / (to - from)) * (high - low));
  const [left, right, top, bottom] = [room.left, width - room.right, room.top, height - room.bottom];
  const px = scale(x0, x1, left, right, x.log), py = scale(y0, y1, bottom, top, y.log);
  const fromX = back(x0, x1, left, right, x.log), fromY = back(y0, y1, bottom, top, y.log);

  const clip = `clip-${(drawChart.count = (drawChart.count ?? 0) + 1)}`;
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "application", tabindex: "0", "aria-roledescription": "chart", "aria-label": `${label} Arrow keys go from value to value, plus and minus zoom, 0 shows everything.` });
  svg.append(element("defs", {}, element("clipPath", { id: clip }, element("rect", { x: left, y: top, width: right - left, height: bottom - top }))));
  const axisX = (x.log ? logTicks(x0, x1) : ticks(x0, x1, Math.max(3, width / 110))).filter((at) => !x.whole || Number.isInteger(at));
  const axisY = y.log ? logTicks(y0, y1) : ticks(y0, y1, 6);
  const [sayX, sayY] = [axisX, axisY].map(writer);
  for (const at of axisX) svg.append(element("line", { class: "grid", x1: px(at), x2: px(at), y1: top, y2: bottom }), element("text", { class: "tick", x: px(at), y: bottom + 16, "text-anchor": "middle" }, sayX(at)));
  for (const at of axisY) svg.append(element("line", { class: "grid", x1: left, x2: right, y1: py(at), y2: py(at) }), element("text", { class: "tick", x: left - 7, y: py(at) + 4, "text-anchor": "end" }, sayY(at)));
  svg.append(element("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }), element("line", { class: "axis", x1: left, x2: left, y1: top, y2: bottom }));
  svg.append(element("text", { class: "name", x: (left + right) / 2, y: height - 8, "text-anchor": "middle" }, x.title + (x.log ? " (log)" : "")));
  svg.append(element("text", { class: "name", x: 0, y: 0, transform: `translate(14 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.title + (y.log ? " (log)" : "")));
  const plot = element("g", { "clip-path": `url(#${clip})` });
  svg.append(plot);

  // Everything a pointer or the keyboard can reach: [x, y, text, series].
  const targets = [];
  const path = (of) => {
    let text = "", open = false;
    for (const [a, b] of of) {
      const there = usable(a, x) && usable(b, y);
      if (there) text += `${open ? "L" : "M"}${px(a).toFixed(1)},${py(b).toFixed(1)}`;
      open = there;
    }
    return text;
  };
  lines.forEach((line, series) => {
    const { colour, dash } = line.style;
    if (line.band?.length > 1) {
      const sure = line.band.filter(([a, low, high]) => usable(a, x) && usable(high, y) && usable(low, { log: false })).map(([a, low, high]) => [a, y.log && low <= 0 ? y0 : low, high]);
      const edge = [...sure.map(([a, , high]) => [a, high]), ...sure.map(([a, low]) => [a, low]).reverse()];
      plot.append(element("path", { class: "band", d: `${path(edge)}Z`, fill: colour, "data-line": line.name }));
    }
    plot.append(element("path", { class: "line", d: path(line.points), stroke: colour, "stroke-dasharray": dash, "data-line": line.name }));
    for (const [a, b, text] of line.points) {
      if (!usable(a, x) || !usable(b, y)) continue;
      if (line.points.length < 2) plot.append(element("circle", { cx: px(a), cy: py(b), r: 3, fill: colour }));
      targets.push([a, b, text, series]);
    }
  });
  if (front.length > 1) plot.append(element("path", { class: "front", d: path(front) }));
  points.forEach((point, series) => {
    if (!usable(point.x, x) || !usable(point.y, y)) return;
    const { colour, shape } = point.style;
    if (point.bar) plot.append(element("line", { class: "bar", stroke: colour, x1: px(point.x), x2: px(point.x), y1: py(point.y - point.bar), y2: py(point.y + point.bar) }));
    plot.append(element("path", { class: "point", d: shape(5), transform: `translate(${px(point.x)} ${py(point.y)})`, stroke: colour, fill: point.hollow ? "none" : colour, "data-point": point.name }));
    targets.push([point.x, point.y, point.text, series]);
  });

  for (const [text, at, beside, anchor] of places(points.filter((point) => usable(point.x, x) && usable(point.y, y)).map((point) => [point.name, px(point.x), py(point.y)]), new Set(front.map(([, , name]) => name)), [left, right, top, bottom])) {
    plot.append(element("text", { class: "mark", x: at, y: beside, "text-anchor": anchor }, text));
  }

  const dot = element("circle", { class: "dot", r: 6, visibility: "hidden" });
  const box = element("rect", { class: "zoom", visibility: "hidden" });
  svg.append(dot, box);
  const readout = element("p", { class: "readout", role: "status", "aria-live": "polite" }, "Point at the chart to read values; drag over a part to see it larger.");
  let now = -1;
  const show = (index) => {
    now = index;
    const [a, b, text] = targets[index];
    dot.setAttribute("cx", px(a));
    dot.setAttribute("cy", py(b));
    dot.setAttribute("visibility", "visible");
    readout.textContent = text;
  };
  const inside = ([a, b]) => a >= x0 && a <= x1 && b >= y0 && b <= y1;
  const at = (event) => {
    const frame = svg.getBoundingClientRect();
    return [((event.clientX - frame.left) / frame.width) * width, ((event.clientY - frame.top) / frame.height) * height];
  };
  let from = null;
  svg.addEventListener("pointermove", (event) => {
    const [mx, my] = at(event);
    if (from) {
      const [a, b, c, d] = [Math.min(from[0], mx), Math.max(from[0], mx), Math.min(from[1], my), Math.max(from[1], my)];
      for (const [name, value] of Object.entries({ x: a, y: c, width: b - a, height: d - c, visibility: "visible" })) box.setAttribute(name, value);
      return;
    }
    let best = -1, distance = 60 ** 2;
    targets.forEach((target, index) => {
      if (!inside(target)) return;
      const apart = (px(target[0]) - mx) ** 2 + (py(target[1]) - my) ** 2;
      if (apart < distance) [best, distance] = [index, apart];
    });
    if (best >= 0 && best !== now) show(best);
  });
  svg.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" || event.button) return;
    from = at(event);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointerup", (event) => {
    if (!from) return;
    const [start, end] = [from, at(event)];
    from = null;
    box.setAttribute("visibility", "hidden");
    if (Math.abs(end[0] - start[0]) < 8 || Math.abs(end[1] - start[1]) < 8) return;
    const keep = (value, low, high) => Math.min(Math.max(value, low), high);
    const [a, b] = [start[0], end[0]].map((each) => fromX(keep(each, left, right))).sort((p, q) => p - q);
    const [c, d] = [start[1], end[1]].map((each) => fromY(keep(each, top, bottom))).sort((p, q) => p - q);
    zoomed([a, b, c, d]);
  });
  svg.addEventListener("dblclick", () => zoomed(null));
  svg.addEventListener("keydown", (event) => {
    const middle = now >= 0 ? targets[now] : [fromX((left + right) / 2), fromY((top + bottom) / 2)];
    if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && targets.length) {
      const step = event.key === "ArrowRight" ? 1 : -1;
      let next = now < 0 ? (step > 0 ? 0 : targets.length - 1) : now + step;
      while (targets[next] && !inside(targets[next])) next += step;
      if (targets[next]) show(next);
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && lines.length && targets.length) {
      const step = event.key === "ArrowDown" ? 1 : -1, series = (now < 0 ? (step > 0 ? -1 : lines.length) : targets[now][3]) + step;
      const near = targets.map((target, index) => [Math.abs(target[0] - middle[0]), index, target]).filter(([, , target]) => target[3] === series && inside(target)).sort((p, q) => p[0] - q[0]);
      if (near.length) show(near[0][1]);
    } else if (event.key === "+" || event.key === "=" || event.key === "-") {
      const share = event.key === "-" ? 2 : 0.5;
      const [mx, my] = [px(middle[0]), py(middle[1])];
      const around = (low, high, centre) => [centre - (centre - low) * share, centre + (high - centre) * share];
      const [a, b] = around(left, right, mx).map(fromX), [d, c] = around(top, bottom, my).map(fromY);
      zoomed([a, b, c, d]);
    } else if (event.key === "0") zoomed(null);
    else return;
    event.preventDefault();
  });
  const lost = [...lines.flatMap((line) => line.points), ...points.map((point) => [point.x, point.y])].filter(([a, b]) => number(a) && number(b) && !(usable(a, x) && usable(b, y)));
  const unseen = lost.length ? element("p", { class: "soft" }, `${lost.some(([a, b]) => (x.log && a < 0) || (y.log && b < 0)) ? "Zeros and negative values" : "Zeros"} are not shown on a logarithmic axis.`) : "";
  container.append(svg, unseen, element("div", { class: "under" }, readout, zoom ? element("button", { type: "button", click: () => zoomed(null) }, "Show everything") : null));
}
