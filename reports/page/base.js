"use strict";
// What every part of the page shares: its data, its elements, its view in the address, and how numbers read.

/** The page's data, as reports/page/data.py made it. */
let data;

/**
 * Make an element. Attributes that are functions are listeners, `true` sets an empty attribute, null and false none.
 * Children are nodes or texts; a text is never read as HTML.
 */
function element(name, attributes = {}, ...children) {
  const svg = element.svg.has(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
element.svg = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "title", "clipPath", "defs"]);

/** What a reader has chosen, kept in the address: "table1.sort=2-&curves.metric=nll". A bare #name is a place. */
const view = {
  values: new URLSearchParams(),
  read() {
    const text = location.hash.slice(1);
    this.values = new URLSearchParams(text.includes("=") ? text : "");
  },
  get(key, otherwise = "") {
    return this.values.get(key) ?? otherwise;
  },
  list(key) {
    return this.values.has(key) ? this.values.getAll(key) : [];
  },
  /** Keep a value, or several under one key; what is as it always is leaves the address. */
  set(key, value, otherwise = "") {
    this.values.delete(key);
    for (const each of [value].flat()) if (each !== otherwise) this.values.append(key, each);
    const text = this.values.toString();
    // Not a new entry of the history: "back" leaves the page, as readers expect.
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  },
};

/** Return a number with so many digits behind the point, with a true minus sign. */
function fixed(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value.toFixed(digits).replace("-", "−");
}

/** Return a number with so many significant digits, as short as it is. */
function short(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const text = Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
}

/** Return a duration in seconds in words of a table: 75 s, 12.5 min, 3.2 h. */
function duration(seconds) {
  if (seconds < 120) return `${short(seconds)} s`;
  return seconds < 7200 ? `${short(seconds / 60)} min` : `${short(seconds / 3600)} h`;
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Return the sample standard deviation, 0 for one value. */
function deviation(values) {
  if (values.length < 2) return 0;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

/** Return a field's name in words. */
function words(field) {
  const text = field.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Return the fields whose values differ between cells, network and methods first. */
function differing(cells) {
  const names = new Set(["network", "methods", ...cells.flatMap((cell) => Object.keys(cell.config))]);
  return [...names].filter((name) => new Set(cells.map((cell) => cell.config[name])).size > 1);
}

/** Return a name for each cell: its network and methods, and what it has unlike most cells; whatever tells it from the others where that does not. */
function labels(cells) {
  const fields = differing(cells), always = ["network", "methods"];
  const usual = new Map(fields.map((name) => {
    const counts = new Map();
    for (const cell of cells) counts.set(cell.config[name], (counts.get(cell.config[name]) ?? 0) + 1);
    return [name, [...counts].sort((one, two) => two[1] - one[1])[0][0]];
  }));
  const text = (cell, all) => fields
    .filter((name) => cell.config[name] !== undefined && (all || always.includes(name) || cell.config[name] !== usual.get(name)))
    .map((name) => ([...always, "dataset"].includes(name) ? cell.config[name] : `${words(name).toLowerCase()} ${cell.config[name]}`))
    .join(", ");
  const names = cells.map((cell) => text(cell, false) || cell.config.methods);
  const taken = new Map();
  for (const name of names) taken.set(name, (taken.get(name) ?? 0) + 1);
  return names.map((name, place) => (taken.get(name) > 1 ? text(cells[place], true) || name : name));
}

/** Make a menu of a select element with options [value, text]. */
function choice(label, options, chosen, changed) {
  const select = element("select", { "aria-label": label, change: () => changed(select.value) }, ...options.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
  return element("label", { class: "control" }, element("span", {}, label), select);
}

function tick(label, checked, changed) {
  const box = element("input", { type: "checkbox", change: () => changed(box.checked) });
  box.checked = checked;
  return element("label", { class: "control tick" }, box, element("span", {}, label));
}

/** Make a button that opens a panel of choices; Escape and a click elsewhere close it. */
function menu(label, ...content) {
  const panel = element("div", { class: "panel" }, ...content);
  // Inside the window: a panel at the right edge moves to the left.
  const place = () => {
    panel.style.left = "0";
    const beyond = panel.getBoundingClientRect().right - document.documentElement.clientWidth + 8;
    if (beyond > 0) panel.style.left = `${-beyond}px`;
  };
  return element("details", { class: "menu", toggle: place }, element("summary", {}, label), panel);
}

/** Say something to readers of screens, and show it for a moment. */
/** Return what holds things that must be seen now: beside an open dialog nothing can be. */
function foreground() {
  return document.querySelector("dialog[open]") ?? document.body;
}

function announce(text) {
  const place = (announce.place ??= document.getElementById("status"));
  foreground().append(place);
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => place.classList.remove("shown"), 2500);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Where the clipboard is closed to pages: the older way.
    const area = element("textarea", { "aria-hidden": "true", class: "away" });
    area.value = text;
    foreground().append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  announce(`${what} copied`);
}

function save(text, name) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
  announce(`${name} saved`);
}
