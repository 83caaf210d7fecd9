// Every machine's last boot, what needs a person first. Rows stay what they are and change in place.

import { arming, follow, mark, mayInstall, words } from "./arming.js";
import { attribute, h, machinePath, MAC, octets, s, seconds, sentence, state, STATES, text, track } from "./dom.js";
import { listen, live, now } from "./live.js";

const ORDER = { stuck: 0, silent: 0, running: 1, booted: 2, declined: 3, unknown: 3 };
const RATES = 60;

export async function show(main) {
  document.title = "Machines · Bootwire";
  const rows = new Map();
  const wanted = { state: "", words: "" };
  const body = h("tbody");
  const chips = Object.keys(STATES).filter((name) => name !== "unknown").map((name) => {
    const count = h("b", {}, "0");
    const chip = h("button", {
      class: `chip ${name}`, type: "button", "aria-pressed": "false",
      onclick: () => {
        wanted.state = wanted.state === name ? "" : name;
        for (const other of chips) attribute(other.chip, "aria-pressed", String(other.name === wanted.state));
        order();
      },
    }, count, ` ${name}`);
    return { name, chip, count };
  });
  const rate = h("b", {}, "0 B/s");
  const area = s("path", { class: "spark-area" });
  const line = s("path", { class: "spark" });
  const search = h("input", {
    type: "search", placeholder: "Filter: MAC, address, firmware, cause", "aria-label": "Filter machines",
    oninput: () => { wanted.words = search.value.toLowerCase(); order(); },
  });
  const empty = h("div", { class: "none", hidden: true }, h("b"), h("span"));
  const unseen = h("p", { class: "soft", hidden: true });
  main.replaceChildren(
    h("h1", { class: "unseen" }, "Machines"),
    h("div", { class: "head" }, h("div", { class: "chips", role: "group", "aria-label": "Show only" }, chips.map((c) => c.chip)),
      search,
      h("div", { class: "rate" }, s("svg", { viewBox: "0 0 60 20", preserveAspectRatio: "none", role: "img", "aria-label": "Octets a second over the last minute" }, area, line), rate)),
    h("div", { class: "panel flat" },
      h("table", { class: "machines" },
        h("thead", {}, h("tr", {}, ["State", "Machine", "Stage", "Now", "Time", "Fetched"].map((name, index) =>
          h("th", { scope: "col", class: index > 3 ? "num" : null }, name)))),
        body), empty), unseen);

  function fits(boot) {
    if (wanted.state && boot.state !== wanted.state) return false;
    return !wanted.words || wanted.words.split(/\s+/).every((word) =>
      `${boot.machine} ${boot.address} ${boot.client} ${boot.state} ${boot.cause} ${boot.because} ${boot.what} ${words(boot.machine)}`.toLowerCase().includes(word));
  }

  function order() {
    const boots = [...live.boots.values()].filter(fits);
    boots.sort((a, b) => ORDER[a.state] - ORDER[b.state] || b.boot - a.boot);
    const wantedRows = boots.map((boot) => rows.get(boot.machine) || make(boot));
    let at = body.firstChild;
    for (const row of wantedRows) {
      if (row.element === at) at = at.nextSibling;
      else body.insertBefore(row.element, at);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
    for (const machine of rows.keys()) if (!live.boots.has(machine)) rows.delete(machine);
    empty.hidden = boots.length > 0;
    const [title, more] = empty.children;
    text(title, live.boots.size ? "No machine fits" : "No machine has asked yet");
    text(more, live.boots.size ? "Clear the filter to see all of them." : "Turn one on and choose network boot, often F12. It shows up here at once.");
    const named = search.value.trim().toLowerCase().replaceAll("-", ":");
    if (arming.possible && MAC.test(named)) more.replaceChildren("It can be armed before it boots: ", h("a", { class: "mono", href: machinePath(named) }, named));
    count();
  }

  function count() {
    const counts = {};
    for (const boot of live.boots.values()) counts[boot.state] = (counts[boot.state] || 0) + 1;
    for (const chip of chips) text(chip.count, String(counts[chip.name] || 0));
  }

  function make(boot) {
    const row = {
      state: h("td"), link: h("a", { class: "machine mono" }), sub: h("span", { class: "sub" }), may: h("span", { hidden: true }), stage: h("td"),
      what: h("div", { class: "what" }), fill: h("i"), time: h("td", { class: "num" }), size: h("td", { class: "num" }), was: "",
    };
    row.bar = h("div", { class: "bar", hidden: true, role: "progressbar", "aria-label": "transfer", "aria-valuemin": 0, "aria-valuemax": 100 }, row.fill);
    row.element = h("tr", {}, row.state, h("td", {}, row.link, " ", row.may, row.sub), row.stage, h("td", {}, row.what, row.bar), row.time, row.size);
    rows.set(boot.machine, row);
    mark(boot.machine, row.may);
    update(boot);
    return row;
  }

  function update(boot) {
    const row = rows.get(boot.machine);
    if (!row) return false;
    const key = `${boot.state} ${boot.step}`;
    const moved = row.was.split(" ")[0] !== boot.state;
    if (row.was !== key) {
      row.was = key;
      row.state.replaceChildren(state(boot.state));
      row.stage.replaceChildren(track(boot), h("span", { class: "sub" }, boot.stage || "seen"));
    }
    attribute(row.link, "href", `/boots/${boot.boot}`);
    text(row.link, boot.machine);
    text(row.sub, [boot.address, boot.client].filter(Boolean).join("  ·  "));
    const doing = sentence(boot.because || (boot.running ? `fetches ${boot.running.name}` : boot.now));
    text(row.what, doing);
    attribute(row.what, "title", boot.fix ? `${doing}\n\n${boot.fix}` : doing);
    const running = boot.running;
    row.bar.hidden = !running || running.size <= 0;
    if (running && running.size > 0) {
      const share = Math.min(100, (running.octets * 100) / running.size);
      row.fill.style.width = `${share}%`;
      attribute(row.bar, "aria-valuenow", String(Math.round(share)));
    }
    text(row.size, boot.octets || running ? octets(boot.octets + (running ? running.octets : 0)) : "");
    clockOf(boot, row);
    return moved;
  }

  function clockOf(boot, row) {
    text(row.time, seconds(boot.state === "running" ? now() - boot.started : boot.seconds));
  }

  // Machines that may install and have not asked: nobody would see them otherwise.
  function absent() {
    const names = arming.possible ? [...arming.states.keys()].filter((name) => mayInstall(name) && !live.boots.has(name)) : [];
    const said = names.join(" ");
    if (unseen.dataset.names === said) return;
    unseen.dataset.names = said;
    unseen.hidden = !names.length;
    unseen.replaceChildren("May install, not seen yet:", ...names.flatMap((name) => [" ", h("a", { class: "mono", href: machinePath(name) }, name)]));
  }

  const rates = [];
  let last = null;
  function measure() {
    if (last) {
      const passed = live.wall - last.wall;
      if (passed < 0.9) return;
      let running = 0;
      for (const boot of live.boots.values()) if (boot.running) running += boot.running.octets;
      const total = live.octets + running;
      rates.push(Math.max(0, (total - last.total) / passed));
      last = { wall: live.wall, total };
    } else last = { wall: live.wall, total: live.octets };
    if (rates.length > RATES) rates.shift();
    const top = Math.max(1, ...rates);
    const points = rates.map((value, index) => `${60 - rates.length + index + 0.5} ${(19.5 - (value / top) * 18).toFixed(2)}`);
    attribute(line, "d", points.length ? `M${points.join("L")}` : "");
    attribute(area, "d", points.length ? `M${60 - rates.length + 0.5} 20L${points.join("L")}L59.5 20Z` : "");
    text(rate, `${octets(Math.round(rates.at(-1) || 0))}/s`);
  }

  follow(() => {
    for (const [machine, row] of rows) mark(machine, row.may);
    absent();
  });

  let due = false;
  let ordered = 0;
  listen((what, boots) => {
    if (what === "all") {
      for (const boot of live.boots.values()) update(boot);
      order();
      absent();
    } else if (what === "boots") {
      let moved = false;
      for (const boot of boots) moved = update(live.boots.get(boot.machine) || boot) || !rows.has(boot.machine) || moved;
      count();
      absent();
      if (moved && !due) {
        due = true;
        setTimeout(() => { due = false; ordered = Date.now(); order(); }, Math.max(0, 200 - (Date.now() - ordered)));
      }
    } else if (what === "now") {
      measure();
      for (const boot of live.boots.values()) {
        const row = rows.get(boot.machine);
        if (row && boot.state === "running") clockOf(boot, row);
      }
    }
  });
}

