// The boot waterfall: what took which time, one bar a row, and between them what nobody did anything in.

import { h, s, seconds } from "./dom.js";

const ROW = 24;
const KINDS = [["discover", "DHCP"], ["address", "address"], ["pxe", "port 4011"], ["loader", "loader"], ["script", "script"],
  ["kernel", "kernel"], ["initrd", "initrd"], ["file", "other file"], ["hand-over", "kernel runs"], ["failed", "failed"]];

function step(span, wanted) {
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
}

const short = (name, most) => (name.length > most ? `…${name.slice(1 - most)}` : name);

export function waterfall(boot, end, room) {
  const bars = boot.bars;
  if (!bars.length) return h("p", { class: "note" }, "Nothing yet.");
  const width = Math.max(320, room);
  const label = width < 600 ? 128 : 230;
  const span = Math.max(0.05, end, ...bars.map((bar) => bar.ended ?? bar.began)) * 1.02;
  const x = (at) => label + (at / span) * (width - label - 92);
  const height = bars.length * ROW + 30;
  const size = step(span, width < 600 ? 3 : 8);
  const ticks = [];
  for (let at = 0; at <= span; at += size) {
    const mark = size < 1 ? at.toFixed(size < 0.1 ? 2 : 1) : String(Math.round(at));
    ticks.push(s("line", { class: "grid", x1: x(at), x2: x(at), y1: 20, y2: height }),
      s("text", { class: "soft small", x: x(at), y: 12, "text-anchor": "middle" }, at ? `${mark} s` : "0"));
  }
  const note = h("p", { class: "note", role: "status" }, "Point at a bar, or step through them with Tab, to read more.");
  const rows = bars.map((bar, index) => {
    const y = 22 + index * ROW;
    const until = bar.ended ?? end;
    const wide = Math.max(2.5, x(until) - x(bar.began));
    const took = bar.ended === bar.began ? `at ${seconds(bar.began)}` : seconds(until - bar.began);
    const words = `${bar.label}: from ${seconds(bar.began)}, ${bar.ended === null ? "still running" : took}; ${bar.note}${bar.failed ? `; failed: ${bar.failed}` : ""}`;
    const tell = () => { note.textContent = words; };
    return s("g", { class: "row", tabindex: 0, role: "listitem", "aria-label": words, onmouseenter: tell, onfocus: tell },
      s("rect", { class: "zone", x: 0, y, width, height: ROW }),
      s("text", { x: label - 12, y: y + 16, "text-anchor": "end" }, short(bar.label, label < 200 ? 18 : 34), s("title", {}, words)),
      s("rect", { class: bar.failed ? "k-failed" : `k-${bar.kind}`, x: x(bar.began), y: y + 6, width: wide, height: ROW - 12, rx: 2, opacity: bar.ended === null ? 0.65 : 1 }),
      s("text", { class: bar.failed ? "small" : "soft small", x: x(bar.began) + wide + 6, y: y + 16 }, bar.failed ? "failed" : took));
  });
  const seen = new Set(bars.map((bar) => (bar.failed ? "failed" : bar.kind)));
  return h("div", {},
    h("div", { class: "scroll" }, s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "list", "aria-label": "Waterfall: what took which time" }, ticks, rows)),
    h("ul", { class: "legend", "aria-label": "Colours" }, KINDS.filter(([kind]) => seen.has(kind)).map(([kind, name]) =>
      h("li", {}, s("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, s("rect", { class: `k-${kind}`, width: 10, height: 10, rx: 2 })), name))),
    note);
}
