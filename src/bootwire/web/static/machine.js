// One machine: whether it may install, and all its boots that are remembered.

import { panel } from "./arming.js";
import { get, h, MAC } from "./dom.js";
import { table } from "./history.js";
import { listen } from "./live.js";

export async function show(main, named) {
  const machine = named.toLowerCase().replaceAll("-", ":");
  document.title = `${machine} · Bootwire`;
  const body = h("div", { class: "panel flat scroll" });
  const diff = h("span");
  main.replaceChildren(h("div", { class: "head" }, h("h1", { class: "mono" }, machine), diff), MAC.test(machine) ? panel(machine) : "", body);
  const load = async () => {
    const lines = await get(`/api/machines/${encodeURIComponent(machine)}/boots`);
    body.replaceChildren(lines.length ? table(lines, { machine: false }) : h("div", { class: "none" }, h("b", {}, "This machine has not booted from here")));
    if (lines.length > 1) diff.replaceChildren(h("a", { class: "button", href: `/diff/${lines[1].boot}/${lines[0].boot}` }, "Compare the last two"));
  };
  await load();
  let due = false;
  listen((what, boots) => {
    if (!due && what === "boots" && boots.some((boot) => boot.machine === machine)) {
      due = true;
      setTimeout(async () => { due = false; await load().catch(() => null); }, 1000);
    }
  });
}
