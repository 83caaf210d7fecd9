// The journal's lines as they come, with a filter.

import { clock, h } from "./dom.js";
import { listen, live } from "./live.js";

const SHOWN = 300;
const BAD = ["transfer-failed", "refusal", "warning", "rival", "not-found"];

export async function show(main) {
  document.title = "Log · Bootwire";
  let words = [];
  let held = false;
  const body = h("tbody");
  const search = h("input", {
    type: "search", "aria-label": "Filter lines", placeholder: "Filter: MAC, step, text",
    oninput: () => { words = search.value.toLowerCase().split(/\s+/).filter(Boolean); all(); },
  });
  const hold = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
    held = !held;
    hold.setAttribute("aria-pressed", String(held));
    hold.textContent = held ? "Go on" : "Pause";
    if (!held) all();
  } }, "Pause");
  main.replaceChildren(
    h("h1", { class: "unseen" }, "Log"),
    h("div", { class: "head" }, search, hold),
    h("div", { class: "panel flat scroll" }, h("table", { class: "log" },
      h("thead", {}, h("tr", {}, ["Time", "Machine", "Step", "Detail"].map((name) => h("th", { scope: "col" }, name)))), body)));

  const fits = (line) => words.every((word) => `${line.machine} ${line.address} ${line.step} ${line.text}`.toLowerCase().includes(word));

  function row(line) {
    const bad = BAD.includes(line.kind) || line.state === "stuck" || line.state === "silent";
    const good = line.kind === "hand-over" || line.state === "booted";
    return h("tr", { class: bad ? "bad" : good ? "good" : null },
      h("td", { class: "mono" }, clock(line.wall)),
      h("td", { class: "mono" }, line.machine || "server", line.address ? h("span", { class: "sub" }, line.address) : null),
      h("td", { class: "step" }, line.step), h("td", {}, line.text));
  }

  function add(lines) {
    if (held) return;
    for (const line of lines) if (fits(line)) body.prepend(row(line));
    while (body.children.length > SHOWN) body.lastChild.remove();
  }

  function all() {
    body.replaceChildren();
    add(live.log);
  }

  listen((what, lines) => {
    if (what === "all") all();
    if (what === "log") add(lines);
  });
}
