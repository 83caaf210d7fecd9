// The ladder: who said what to whom, from top to bottom.

import { h, s, seconds } from "./dom.js";

const ROW = 34;
const NAMES = { machine: "machine", bootwire: "Bootwire", dhcp: "DHCP server", other: "other server" };
const SHOWN = 120;

export function ladder(boot, room) {
  const rungs = boot.ladder.slice(0, SHOWN);
  const used = Object.keys(NAMES).filter((name) => name === "machine" || name === "bootwire" || rungs.some((r) => r.from === name || r.to === name));
  const width = Math.max(900, room);
  const gap = used.length > 3 ? 160 : used.length > 2 ? 200 : 300;
  const x = Object.fromEntries(used.map((name, index) => [name, 150 + index * gap]));
  const texts = 150 + (used.length - 1) * gap + 24;
  const height = rungs.length * ROW + 44;
  const lives = used.map((name) => s("g", {},
    s("text", { x: x[name], y: 14, "text-anchor": "middle" }, NAMES[name]),
    s("line", { class: "life", x1: x[name], x2: x[name], y1: 22, y2: height })));
  const rows = rungs.map((rung, index) => {
    const y = 44 + index * ROW;
    const words = `${seconds(rung.at)}: ${NAMES[rung.from]} to ${NAMES[rung.to]}: ${rung.step}, ${rung.text}`;
    const from = x[rung.from];
    const to = x[rung.to];
    const way = Math.sign(to - from);
    const fit = Math.floor((width - texts) / 5.9);
    const label = rung.text.length > fit ? `${rung.text.slice(0, fit - 1)}…` : rung.text;
    const drawn = way === 0
      ? [s("circle", { class: "tip", cx: from, cy: y, r: 3 })]
      : [s("line", { class: "arrow", x1: from, x2: to - way * 7, y1: y, y2: y }),
        s("path", { class: "tip", d: `M${to} ${y}l${-way * 8} -4v8z` })];
    return s("g", { class: rung.bad ? "row bad" : "row", role: "listitem", "aria-label": words },
      s("rect", { class: "zone", x: 0, y: y - ROW / 2, width, height: ROW }),
      s("text", { class: "soft small", x: 84, y: y + 4, "text-anchor": "end" }, seconds(rung.at)),
      drawn,
      s("text", { x: way === 0 ? from + 10 : (from + to) / 2, y: y - 6, "text-anchor": way === 0 ? "start" : "middle", class: "small" }, rung.step),
      s("text", { class: "soft small", x: texts, y: y + 4 }, label, s("title", {}, words)));
  });
  const left = boot.ladder.length - rungs.length + boot.left_out;
  return h("div", {},
    h("div", { class: "scroll" }, s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "list", "aria-label": "Ladder: who said what to whom" }, lives, rows)),
    left > 0 ? h("p", { class: "note" }, `${left} more are left out here.`) : null);
}
