// One boot: what became of it, its waterfall, its ladder, everything that is known of it.

import { follow, mark } from "./arming.js";
import { get, h, machinePath, moment, octets, seconds, sentence, state } from "./dom.js";
import { ladder } from "./ladder.js";
import { listen, live, now } from "./live.js";
import { waterfall } from "./waterfall.js";

const KNOWN = [["Firmware", "client"], ["Address", "address"], ["Given by", "given_by"], ["Boots", "what"], ["Boot file", "boot_file"],
  ["Offer", "recipe"], ["Loader", "loader"], ["Interface", "interface"], ["Relay", "relay"], ["Vendor class", "vendor_class"], ["UUID", "uuid"]];

function verdict(boot) {
  const fixes = boot.fix ? boot.fix.split("; ") : [];
  const words = sentence(boot.because || (boot.running ? `fetches ${boot.running.name}` : boot.now));
  return h("section", { class: `panel verdict ${boot.state}`, "aria-label": "Verdict" },
    h("div", {}, state(boot.state), h("p", {}, `${words}.`),
      fixes.length ? [h("h2", {}, "To fix it"), h("ol", {}, fixes.map((fix) => h("li", {}, fix)))] : null,
      boot.screen ? h("p", { class: "screen" }, "Its screen shows then: ", h("code", {}, boot.screen)) : null),
    h("div", { class: "keep" },
      h("a", { class: "button", href: `/api/boots/${boot.boot}/facts.jsonl`, download: true }, "Facts (JSON lines)"),
      h("a", { class: "button", href: `/api/boots/${boot.boot}/capture.pcap`, download: true }, "Capture (pcap)"),
      h("span", { id: "compare" })));
}

function known(boot) {
  const rows = KNOWN.filter(([, field]) => boot[field]).map(([name, field]) => [name, boot[field]]);
  rows.push(["Began", moment(boot.started)], ["Took", seconds(boot.seconds)], ["Fetched", octets(boot.octets)]);
  if (boot.resent) rows.push(["Sent again", octets(boot.resent)]);
  if (boot.discovers > 1) rows.push(["Asked", `${boot.discovers} times`]);
  if (boot.failures) rows.push(["Failed transfers", String(boot.failures)]);
  return h("dl", { class: "facts" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function facts(boot) {
  return h("details", {}, h("summary", {}, `${boot.facts.length} facts`),
    h("div", { class: "scroll" }, h("table", { class: "log" },
      h("thead", {}, h("tr", {}, ["Time", "Kind", "Fields"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, boot.facts.map((fact) => {
        const { v, time, kind, machine, ...rest } = fact;
        return h("tr", {}, h("td", { class: "mono" }, seconds(time - boot.started)), h("td", { class: "step" }, kind), h("td", { class: "mono" }, JSON.stringify(rest)));
      })))));
}

function panel(title, ...children) {
  return h("section", { class: "panel", "aria-label": title }, h("h2", {}, title), children);
}

export async function show(main, number) {
  let boot;
  let compare = null;
  const may = h("span", { hidden: true });
  const draw = () => {
    const end = boot.state === "running" ? Math.max(boot.last, now() - boot.started) : boot.last;
    const room = main.clientWidth - 78;
    const opened = main.querySelector("details")?.open;
    const scrolled = [...main.querySelectorAll(".scroll")].map((element) => element.scrollLeft);
    main.replaceChildren(
      h("div", { class: "head" }, h("h1", {}, "Boot ", String(boot.boot), " of ", h("a", { class: "mono", href: machinePath(boot.machine) }, boot.machine)), may),
      verdict(boot), panel("Waterfall", waterfall(boot, end, room)), panel("What is known", known(boot)),
      panel("Exchange", ladder(boot, room)), panel("Facts", facts(boot)));
    if (opened) main.querySelector("details").open = true;
    main.querySelectorAll(".scroll").forEach((element, index) => { element.scrollLeft = scrolled[index] || 0; });
    if (compare) main.querySelector("#compare").replaceChildren(compare);
  };
  const load = async () => {
    boot = await get(`/api/boots/${number}`);
    document.title = `${boot.machine} · Bootwire`;
    draw();
  };
  try {
    await load();
  } catch (error) {
    main.replaceChildren(h("div", { class: "none" }, h("b", {}, "This boot is not here"), error.message));
    return;
  }
  follow(() => mark(boot.machine, may));
  const others = (await get(`/api/machines/${encodeURIComponent(boot.machine)}/boots?limit=20`)).filter((other) => other.boot < boot.boot);
  if (others.length) {
    compare = h("a", { class: "button", href: `/diff/${others[0].boot}/${boot.boot}` }, "Compare with the one before");
    draw();
  }
  let loading = false;
  listen((what, boots) => {
    const mine = what === "boots" && boots.some((other) => other.boot === boot.boot);
    if (!loading && (mine || (what === "all" && live.boots.has(boot.machine)))) {
      loading = true;
      setTimeout(async () => { await load().catch(() => null); loading = false; }, 400);
    } else if (what === "now" && boot.state === "running" && !main.contains(document.activeElement)) draw();
  });
}
