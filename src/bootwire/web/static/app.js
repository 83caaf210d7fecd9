// Which view the address asks for, and what all of them share: where we are, whether we are live, what changed.

import { text } from "./dom.js";
import { listen, live } from "./live.js";

const main = document.getElementById("main");
const path = location.pathname;

for (const link of document.querySelectorAll("nav a")) {
  if (link.getAttribute("href") === path) link.setAttribute("aria-current", "page");
}

const link = document.getElementById("link");
const said = document.getElementById("said");
let spoken = 0;

listen((what, data) => {
  link.className = live.connected ? "link live" : "link lost";
  text(link, live.connected ? "live" : "not connected, trying again");
  if (what === "boots" && Date.now() - spoken > 5000) {
    const ended = data.filter((boot) => boot.state === "stuck" || boot.state === "silent");
    if (ended.length) {
      spoken = Date.now();
      text(said, ended.length > 1 ? `${ended.length} machines need attention` : `${ended[0].machine} is ${ended[0].state}`);
    }
  }
});

const views = [
  [/^\/$/, "./machines.js"],
  [/^\/wall$/, "./wall.js"],
  [/^\/history$/, "./history.js"],
  [/^\/log$/, "./log.js"],
  [/^\/boots\/(\d+)$/, "./boot.js"],
  [/^\/machines\/(.+)$/, "./machine.js"],
  [/^\/diff\/(\d+)\/(\d+)$/, "./diff.js"],
];

for (const [pattern, file] of views) {
  const found = pattern.exec(path);
  if (found) {
    const { show } = await import(file);
    await show(main, ...found.slice(1).map(decodeURIComponent));
    break;
  }
}
