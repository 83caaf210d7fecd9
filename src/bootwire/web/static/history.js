// Boots that were, the newest first, and a search over them.

import { get, h, moment, octets, seconds, sentence, state, track } from "./dom.js";

const PAGE = 100;

export function table(lines, { machine = true } = {}) {
  const heads = ["State", ...(machine ? ["Machine"] : []), "Began", "Stage", "What became of it", "Time", "Fetched"];
  return h("table", { class: "past" },
    h("thead", {}, h("tr", {}, heads.map((name) => h("th", { scope: "col", class: ["Time", "Fetched"].includes(name) ? "num" : null }, name)))),
    h("tbody", {}, lines.map((boot) => row(boot, machine))));
}

function row(boot, machine) {
  return h("tr", {},
    h("td", {}, state(boot.state)),
    machine ? h("td", {}, h("a", { class: "machine mono", href: `/boots/${boot.boot}` }, boot.machine), h("span", { class: "sub" }, [boot.address, boot.client].filter(Boolean).join("  ·  "))) : null,
    h("td", {}, machine ? h("span", { class: "mono" }, moment(boot.started)) : h("a", { class: "machine mono", href: `/boots/${boot.boot}` }, moment(boot.started))),
    h("td", {}, track(boot), h("span", { class: "sub" }, boot.stage)),
    h("td", {}, h("div", { class: "what" }, sentence(boot.because || boot.what))),
    h("td", { class: "num" }, seconds(boot.seconds)),
    h("td", { class: "num" }, octets(boot.octets)));
}

export async function show(main) {
  document.title = "History · Bootwire";
  const body = h("div", { class: "panel flat scroll" });
  const older = h("button", { type: "button", hidden: true, onclick: () => load(lines.at(-1).boot) }, "Older");
  const search = h("input", { type: "search", "aria-label": "Search boots", placeholder: "Search: MAC, address, firmware, cause", value: new URLSearchParams(location.search).get("q") || "" });
  let lines = [];
  const form = h("form", { class: "head", role: "search", onsubmit: (event) => { event.preventDefault(); find(); } }, search, h("button", {}, "Search"));
  main.replaceChildren(h("h1", { class: "unseen" }, "History"), form, body, older);

  async function find() {
    lines = [];
    history.replaceState(null, "", search.value ? `/history?q=${encodeURIComponent(search.value)}` : "/history");
    await load(0);
  }

  async function load(before) {
    const query = new URLSearchParams({ q: search.value, before, limit: PAGE });
    const more = await get(`/api/boots?${query}`);
    lines = lines.concat(more);
    body.replaceChildren(lines.length ? table(lines) : h("div", { class: "none" }, h("b", {}, "No boot fits"), search.value ? "Try fewer words." : "Boots show up here as they end."));
    older.hidden = more.length < PAGE;
  }

  await find();
}
