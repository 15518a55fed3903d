// The live part of the page: what runs and what has failed, as the server sends it, and new results in place of old.
{
  const SILENCE = 45_000; // Milliseconds without a sign of life, after which a connection is taken for dead.
  const AGAIN = 3_000;

  const make = (tag, given = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(given)) {
      if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };

  // What has the focus keeps it when its surroundings are replaced: returns what gives it to the same place in the new.
  const keepFocus = (root) => {
    let element = document.activeElement;
    if (element === root || !root.contains(element)) return () => {};
    const path = [];
    for (; element !== root; element = element.parentNode) path.unshift([...element.parentNode.children].indexOf(element));
    return (replaced) => path.reduce((inner, place) => inner?.children[place], replaced)?.focus({ preventScroll: true });
  };

  const connection = make("p", { class: "connection soft", role: "status" }, "connecting");
  const problem = make("p", { class: "problem", role: "alert" });
  const blocks = make("div");
  const panel = make("section", { id: "live", "aria-label": "Live" }, connection, problem, blocks);
  document.head.append(make("style", {}, LIVE_STYLE));
  const page = document.getElementById("page");
  page.before(panel);

  // A block is replaced only when its values changed, so that what a person has opened or selected stays.
  const shown = new Map();
  const show = (wanted) => {
    for (const [key, { element }] of shown) {
      if (!wanted.some((block) => block.key === key)) {
        element.remove();
        shown.delete(key);
      }
    }
    wanted.forEach(({ key, values, draw }, place) => {
      const text = JSON.stringify(values);
      const old = shown.get(key);
      if (old?.text !== text) {
        const element = draw(values);
        if (old) {
          if (element.matches("details")) element.open = old.element.open;
          const read = [...old.element.querySelectorAll("pre")].map((log) => log.scrollTop);
          const focus = keepFocus(old.element);
          old.element.replaceWith(element);
          focus(element);
          element.querySelectorAll("pre").forEach((log, number) => { log.scrollTop = read[number] ?? 0; });
        }
        shown.set(key, { text, element });
      }
      const { element } = shown.get(key);
      if (blocks.children[place] !== element) blocks.insertBefore(element, blocks.children[place] ?? null);
    });
  };

  const drawGrid = (grid) => make("div", {},
    make("h2", {}, grid.name, " ", make("span", { class: "soft" }, grid.progress)),
    make("progress", { max: grid.total, value: grid.done, "aria-label": `${grid.name}: trials done` }),
    grid.continue ? make("p", {}, make("code", {}, grid.continue), " continues what was interrupted") : null,
    grid.links.length ? make("p", { class: "soft" }, "The machine: ", ...grid.links.flatMap((link, place) => [
      place ? ", " : "", make("a", { href: link.address, rel: "noreferrer", target: "_blank" }, link.title)])) : null);

  const drawTrial = (trial) => {
    const text = `${trial.name}: ${trial.progress}${trial.place ? `, on ${trial.place}` : ""}`;
    if (trial.end === null) return make("p", {}, text, trial.log ? make("span", { class: "soft" }, ` (log: ${trial.log})`) : null);
    return make("details", {}, make("summary", {}, text),
      make("p", { class: "soft" }, "End of ", make("code", {}, trial.log)),
      make("pre", { tabindex: "0", "aria-label": `End of the log of ${trial.name}` }, trial.end));
  };

  const drawFailure = (failure) => {
    const more = failure.count - failure.trials.length;
    return make("details", { class: "failed" },
      make("summary", {}, `${failure.class} in ${failure.grid}: ${failure.count === 1 ? "1 trial" : `${failure.count} trials`}: ${failure.error ?? ""}`),
      make("p", {}, `Trials: ${failure.trials.join(", ")}${more > 0 ? ` and ${more} more` : ""}`),
      failure.remedy ? make("p", {}, failure.remedy) : null,
      make("p", {}, failure.retry ? "Try again: " : "Try again with the original of this copy.",
        failure.retry ? make("code", {}, failure.retry) : null),
      failure.log ? make("p", { class: "soft" }, "Log: ", make("code", {}, failure.log)) : null,
      make("pre", { tabindex: "0", "aria-label": "End of the log" }, failure.excerpt));
  };

  const draw = (state) => {
    problem.textContent = state.problem ? `${state.problem} What stands below was read before; this page goes on trying.` : "";
    problem.hidden = !state.problem;
    const wanted = [];
    const whole = (grid) => grid.done === grid.total && !grid.trials.length && !grid.links.length;
    const grids = state.grids ?? [];
    for (const grid of grids.length > 1 ? grids.filter((grid) => !whole(grid)) : grids) {
      const { trials, more, ...values } = grid;
      wanted.push({ key: `grid ${grid.name}`, values, draw: drawGrid });
      for (const trial of trials) wanted.push({ key: `trial ${grid.name} ${trial.name}`, values: trial, draw: drawTrial });
      if (more) wanted.push({ key: `more ${grid.name}`, values: more, draw: () => make("p", { class: "soft" }, `and ${more} more under way`) });
    }
    (state.failures ?? []).forEach((failure) => {
      wanted.push({ key: `failure ${failure.grid} ${failure.trials[0]}`, values: failure, draw: drawFailure });
    });
    const finished = grids.length > 1 ? grids.filter(whole).map((grid) => `${grid.name} (${grid.total})`) : [];
    if (finished.length) wanted.push({ key: "finished", values: finished, draw: () => make("p", { class: "soft" }, `All trials done: ${finished.join(", ")}`) });
    if (state.grids && !grids.length) wanted.push({ key: "none", values: 0, draw: () => make("p", {}, "No grid was run yet.") });
    show(wanted);
    const sum = (name) => grids.reduce((total, grid) => total + grid[name], 0);
    const title = `${sum("done")}/${sum("total")} done${grids.length === 1 ? `: ${grids[0].name}` : ""}`;
    document.title = state.problem ? `(!) ${title}` : title;
  };

  // Results: the page is fetched again, and its content put in place of the old one.
  let version = JSON.parse(document.getElementById("data").textContent).live.version;
  let newest = version;
  let fetching = false;
  // Not under the hands of a person who writes, reads a trial, chooses from a menu or has selected something.
  const busy = () => page.querySelector("details.menu[open]") || document.querySelector("dialog[open]")
    || (page.contains(document.activeElement) && document.activeElement.matches("input, select, textarea"))
    || (!getSelection().isCollapsed && page.contains(getSelection().anchorNode));
  const renew = async () => {
    if (fetching || newest === version || busy()) return;
    fetching = true;
    try {
      // Where the server is away, the connection says so, and the next state asks again.
      const answer = await fetch("/", { cache: "no-store" }).catch(() => null);
      if (!answer?.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const data = fresh.getElementById("data").textContent;
      if (busy()) return;
      version = JSON.parse(data).live.version;
      const top = scrollY;
      const focus = keepFocus(page);
      document.getElementById("data").textContent = data;
      page.replaceChildren(...document.adoptNode(fresh.getElementById("page")).childNodes);
      showPage();
      focus(page);
      scrollTo({ top, behavior: "instant" });
    } finally {
      fetching = false;
    }
  };
  let source = null;
  let heard = 0;
  const lost = (text) => {
    connection.classList.add("lost");
    connection.textContent = text;
  };
  const connect = () => {
    source?.close();
    heard = Date.now();
    source = new EventSource("/events");
    const alive = () => {
      heard = Date.now();
      connection.classList.remove("lost");
      connection.textContent = "live";
    };
    source.addEventListener("alive", alive);
    source.addEventListener("state", (event) => {
      alive();
      const state = JSON.parse(event.data);
      draw(state);
      newest = state.page;
      renew();
    });
    source.addEventListener("error", async () => {
      lost("The connection is lost; this page tries again. What stands here was read before.");
      if (source.readyState !== EventSource.CLOSED) return;
      // The server has answered, and refused: another one has its place, with another token.
      const answer = await fetch("/events-allowed", { cache: "no-store" }).catch(() => null);
      if (answer?.status === 403) lost("The server was started anew: open the address that `orchestrate watch --serve` prints now.");
    });
  };
  connect();
  setInterval(() => {
    renew();
    if (source.readyState === EventSource.CLOSED || Date.now() - heard > SILENCE) connect();
  }, AGAIN);
  // After sleep a connection may look open that is dead.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && Date.now() - heard > SILENCE / 2) connect();
  });
  addEventListener("online", connect);
}
