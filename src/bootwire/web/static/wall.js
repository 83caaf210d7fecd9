// A lab at one look: two hundred machines on one screen, in the order of their MACs, each a tile that never moves.

import { follow, mark, mayInstall, words } from "./arming.js";
import { attribute, h, seconds, STATES, text, track } from "./dom.js";
import { listen, live, now } from "./live.js";

const SHOWN = ["running", "booted", "stuck", "silent", "declined"];

export async function show(main) {
  document.title = "Wall · Bootwire";
  const tiles = new Map();
  const list = h("ul", { class: "wall" });
  const counts = SHOWN.map((name) => [name, h("b", {}, "0")]);
  const able = h("b", {}, "0");
  const ables = h("span", { class: "may armed", "data-sign": "⚑", hidden: true }, able, " may install");
  main.replaceChildren(
    h("h1", { class: "unseen" }, "Wall"),
    h("div", { class: "head" }, h("div", { class: "chips" }, counts.map(([name, count]) =>
      h("span", { class: `state ${name}`, "data-sign": STATES[name] }, count, ` ${name}`)), ables)),
    list);

  function make(boot) {
    const tile = { link: h("a"), name: h("span", { class: "mono" }), sign: h("span"), may: h("span", { hidden: true }), sub: h("span", { class: "sub" }), steps: h("div"), was: "" };
    tile.link.append(h("span", { class: "name" }, tile.name, tile.may, tile.sign), tile.sub, tile.steps);
    tile.element = h("li", {}, tile.link);
    tile.machine = boot.machine;
    tiles.set(boot.machine, tile);
    const after = [...tiles.keys()].filter((other) => other > boot.machine).sort()[0];
    list.insertBefore(tile.element, after ? tiles.get(after).element : null);
    return tile;
  }

  function update(boot) {
    const tile = tiles.get(boot.machine) || make(boot);
    const key = `${boot.state} ${boot.step}`;
    if (tile.was !== key) {
      tile.was = key;
      attribute(tile.link, "class", boot.state);
      const steps = track(boot);
      steps.setAttribute("aria-hidden", "true");
      steps.removeAttribute("role");
      tile.steps.replaceChildren(steps);
      text(tile.sign, STATES[boot.state] || "");
    }
    attribute(tile.link, "href", `/boots/${boot.boot}`);
    text(tile.name, boot.machine.slice(9));
    detail(boot, tile);
    attribute(tile.link, "title", `${boot.machine} ${boot.address}\n${boot.client}\n${boot.because || boot.now}`);
    label(boot, tile);
  }

  function label(boot, tile) {
    const may = words(boot.machine);
    mark(boot.machine, tile.may);
    attribute(tile.link, "aria-label", `${boot.machine}: ${boot.state}, ${boot.cause || boot.stage || "seen"}${may ? `; ${may}` : ""}`);
  }

  function detail(boot, tile) {
    const running = boot.running;
    const share = running && running.size > 0 ? ` ${Math.floor((running.octets * 100) / running.size)} %` : "";
    const time = seconds(boot.state === "running" ? now() - boot.started : boot.seconds);
    const word = boot.state === "booted" ? (boot.stage === "alive" ? "up" : "started") : boot.stage || "seen";
    text(tile.sub, boot.cause || `${word} ${share || time}`);
  }

  function count() {
    for (const [name, element] of counts) {
      let number = 0;
      for (const boot of live.boots.values()) number += boot.state === name;
      text(element, String(number));
    }
  }

  follow(() => {
    for (const [machine, tile] of tiles) if (live.boots.has(machine)) label(live.boots.get(machine), tile);
    const number = [...tiles.keys()].filter(mayInstall).length;
    ables.hidden = !number;
    text(able, String(number));
  });

  listen((what, boots) => {
    if (what === "all") {
      for (const [machine, tile] of tiles) {
        if (!live.boots.has(machine)) {
          tile.element.remove();
          tiles.delete(machine);
        }
      }
      for (const boot of live.boots.values()) update(boot);
      count();
    } else if (what === "boots") {
      for (const boot of boots) update(live.boots.get(boot.machine) || boot);
      count();
    } else if (what === "now") {
      for (const boot of live.boots.values()) if (boot.state === "running") detail(boot, tiles.get(boot.machine) || make(boot));
    }
  });
}
