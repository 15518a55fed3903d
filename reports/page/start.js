// A cell's trials in a dialog, and the start of it all.

/** Open the trials behind a cell of a table, or behind a whole row where `place` is -1. */
function openTrials(shown, row, place) {
  view.set("open", `${shown.table.id}:${row.key}:${place}`);
  const cell = place < 0 ? null : row.cells[place];
  const behind = cell ? [...cell.samples.map(([trial, epoch, value]) => ({ trial, epoch, value })), ...cell.absent.filter(([trial]) => !cell.samples.some((sample) => sample[0] === trial)).map(([trial]) => ({ trial }))] : row.trials.map((trial) => ({ trial }));
  const heading = place < 0 ? shown.nameOf(row) : `${shown.nameOf(row)}: ${shown.columns[shown.table.stub.length + place]} ${row.line.cells[shown.offset + shown.table.stub.length + place].textContent.trim()}`;
  const dialog = document.getElementById("trials");
  const opener = document.activeElement;
  const varying = differing(data.cells);
  dialog.replaceChildren(
    element("div", { class: "top" }, element("h2", { id: "trials-title" }, heading), element("button", { type: "button", "aria-label": "Close", click: () => dialog.close() }, "Close")),
    element("p", { class: "soft" }, cell ? `${behind.length === 1 ? "One trial stands" : `${behind.length} trials stand`} behind this. ${shown.table.selection}` : `${behind.length === 1 ? "One trial" : `${behind.length} trials`}.`),
    ...behind.map((each, index) => trialDetails(each, index === 0, varying)),
  );
  dialog.onclose = () => {
    view.set("open", "");
    if (opener?.isConnected) opener.focus();
  };
  if (!dialog.open) dialog.showModal();
}

function pairs(list) {
  return element("dl", {}, ...list.filter(([, value]) => value !== undefined && value !== null && value !== "").flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

/** Return what is known of one trial: its number, its attempts, its configuration. */
function trialDetails({ trial, epoch, value }, open, varying) {
  const { key, name, seed, state, cell, epochs, parameters, attempts, values } = data.trials[trial];
  const number = value === undefined || value === null ? "" : `: ${short(value)}${epoch ? ` at epoch ${epoch}` : ""}`;
  const { config } = data.cells[cell];
  const rest = Object.keys(config).filter((field) => !varying.includes(field));
  const measured = data.quantities.filter((quantity) => values[quantity.key] !== undefined).map((quantity) => `${quantity.title} ${short(values[quantity.key])}`);
  return element("details", { class: "trial", open },
    element("summary", {}, element("b", {}, name), ` (${state})${number}`),
    pairs([["Seed", String(seed)], ["Epochs", String(epochs)], ["Parameters", parameters ? parameters.toLocaleString("en") : ""], ["Key", key], ["Measured", measured.join(", ")]]),
    ...attempts.map(attemptDetails),
    element("h4", {}, "Configuration"),
    pairs(varying.filter((field) => field in config).map((field) => [words(field), config[field]])),
    element("details", {}, element("summary", {}, `${rest.length} more fields, the same in all trials`), pairs(rest.map((field) => [words(field), config[field]]))),
  );
}

const PURPOSES = { train: "Training", time: "Timing pass", canary: "Canary" };

function attemptDetails(attempt) {
  const commit = attempt.commit ? attempt.commit + (attempt.dirty ? ", with uncommitted changes" : "") : "unknown";
  const log = attempt.log ? element("span", {}, element("code", { class: "path" }, attempt.log), " ", element("button", { type: "button", click: () => copy(attempt.log, "Path") }, "Copy path")) : "none";
  const lines = attempt.end?.split("\n").length;
  const wanted = attempt.purpose === "train" && attempt.log && attempt.end === undefined;
  return element("div", { class: "attempt" },
    element("h4", {}, `Attempt ${attempt.number}: ${PURPOSES[attempt.purpose] ?? attempt.purpose}, ${attempt.outcome}`),
    pairs([
      ["When (UTC)", attempt.started + (attempt.ended ? ` to ${attempt.ended}` : "")],
      ["Device", [attempt.device, attempt.host ? `on ${attempt.host}` : ""].filter(Boolean).join(" ")], ["Engine", attempt.engine], ["Commit", commit],
      ["Failure", [attempt.error_class, attempt.error].filter(Boolean).join(": ")], ["Log", log],
    ]),
    ...(attempt.end ? [element("h4", {}, `Log of attempt ${attempt.number}: the last ${lines === 1 ? "line" : `${lines} lines`}`), element("pre", { tabindex: "0", role: "region", "aria-label": `End of the log of attempt ${attempt.number}` }, attempt.end)] : []),
    wanted ? element("p", { class: "soft" }, data.logs_left_out ? "The end of the log was left out to keep this file small." : "The log could not be read on the machine that wrote this page.") : null,
  );
}

/** The charts of the page, drawn again where the page's width changes. */
let charts = [];
/** The style of every cell, the same in all charts whatever they show. */
let styles = [];

/** Build everything from the data in the page, as the address asks for. Called again when the data is replaced. */
function showPage() {
  data = JSON.parse(document.getElementById("data").textContent);
  view.read();
  for (const made of document.querySelectorAll(".explore, .tools, .comparison, .skip")) made.remove();
  const tables = new Map();
  for (const table of data.tables) {
    const section = document.getElementById(table.id);
    if (section?.querySelector("table")) tables.set(table.id, new TableView(table, section));
  }
  styles = stylesOf(data.cells);
  charts = [planeSection, curvesSection, fieldsSection].map((make) => make()).filter(Boolean);
  const before = document.getElementById("explore");
  before.replaceChildren(...charts);
  for (const chart of charts) chart.draw();
  if (charts.length) document.getElementById("page").prepend(element("a", { class: "skip away", href: `#${charts[0].id}` }, "Skip to the charts"));
  const links = document.querySelector("nav .charts");
  links.replaceChildren(...charts.map((chart) => element("a", { href: `#${chart.id}` }, chart.querySelector("h2").textContent)));
  for (const picture of document.querySelectorAll("details.picture")) picture.open = false;
  const [id, ...rest] = view.get("open").split(":");
  const place = Number(rest.pop()), row = tables.get(id)?.rows.find((each) => each.key === rest.join(":"));
  if (row && (place < 0 || row.cells[place])) openTrials(tables.get(id), row, place);
  document.documentElement.classList.add("alive");
}

addEventListener("hashchange", () => {
  // A link to a place in the page leaves the view as it is.
  if (location.hash.includes("=")) location.reload();
});
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='#']");
  const target = link && document.getElementById(decodeURIComponent(link.getAttribute("href").slice(1)));
  if (target) {
    event.preventDefault();
    target.scrollIntoView();
    target.setAttribute("tabindex", "-1");
    target.focus({ preventScroll: true });
  }
  for (const open of document.querySelectorAll("details.menu[open]")) if (!open.contains(event.target)) open.open = false;
});
addEventListener("keydown", (event) => {
  const open = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (open) {
    open.open = false;
    open.querySelector("summary").focus();
  }
});
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  for (const chart of charts) chart.draw();
});
addEventListener("beforeprint", () => { for (const picture of document.querySelectorAll("details.picture")) picture.open = true; });
showPage();
