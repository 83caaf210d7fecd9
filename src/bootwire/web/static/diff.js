// Two boots side by side: only what differs.

import { get, h, moment, state } from "./dom.js";

export async function show(main, one, other) {
  document.title = "Compare · Bootwire";
  let found;
  try {
    found = await get(`/api/diff/${one}/${other}`);
  } catch (error) {
    main.replaceChildren(h("div", { class: "none" }, h("b", {}, "These two cannot be compared"), error.message));
    return;
  }
  const head = (boot) => h("th", { scope: "col" }, h("a", { href: `/boots/${boot.boot}` }, `Boot ${boot.boot}`), " ", state(boot.state), h("span", { class: "sub" }, `${boot.machine}  ·  ${moment(boot.started)}`));
  main.replaceChildren(
    h("div", { class: "head" }, h("h1", {}, "What differs")),
    h("div", { class: "panel flat scroll" }, h("table", { class: "compare" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, ""), head(found.one), head(found.other), h("th", { scope: "col" }, "Note"))),
      h("tbody", {}, found.rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.what), h("td", {}, row.one || "–"), h("td", {}, row.other || "–"), h("td", {}, row.note))))),
    found.rows.length ? null : h("div", { class: "none" }, h("b", {}, "Nothing"), "The two went the same way, in the same time.")));
}
