// Who may install: what the server says of it, and changes of it, which need the token. The token is asked for here,
// even in a browser that signed in (its cookie is for reading), and is kept for this tab alone.

import { attribute, get, h, moment, sentence, text } from "./dom.js";
import { listen, live, now } from "./live.js";

const SIGNS = { armed: "⚑", installing: "⚑", failed: "✕", installed: "✓", idle: "·" };
const MARKED = ["armed", "installing", "failed"]; // what a list shows: who may wipe a disk, and who could not finish
const UNITS = [["minutes", 60], ["hours", 3600], ["days", 86400]];
const TOKEN = "bootwire-token";

export const arming = { possible: false, profiles: [], tries: 3, within: 86400, states: new Map() };
const followers = new Set();
let seen = -1; // changes that the server had counted when it was last asked
let busy = false;
let tried = 0;

const may = (state) => state.phase === "armed" || state.phase === "installing";
export const mayInstall = (machine) => arming.states.has(machine) && may(arming.states.get(machine));

// Call `follower` whenever any of it changes.
export function follow(follower) {
  followers.add(follower);
  if (followers.size === 1) {
    listen((what) => {
      if (what === "all") seen = -1; // it may be another server by now
      if (what === "all" || what === "now") refresh();
    });
  } else if (seen >= 0) follower();
}

async function refresh() {
  if (busy || Date.now() - tried < 300) return;
  const over = [...arming.states.values()].some((state) => may(state) && state.until <= now());
  if (seen === live.states && !over) return;
  busy = true;
  tried = Date.now();
  const counted = live.states;
  try {
    if (seen < 0) Object.assign(arming, await get("/api/arming"));
    const states = arming.possible ? await get("/api/states") : [];
    arming.states = new Map(states.map((state) => [state.machine, state]));
    seen = counted;
    for (const follower of followers) follower();
  } catch {
    // The next beat asks again; a server that went away is told of at the top of the page.
  }
  busy = false;
}

export function words(machine) {
  const state = arming.states.get(machine);
  return state && MARKED.includes(state.phase) ? `${state.phase} ${state.profile}`.trim() : "";
}

// What a list shows beside a machine; empty for one that is neither armed nor left over.
export function mark(machine, element) {
  const said = words(machine);
  const state = arming.states.get(machine);
  text(element, said && state.phase === "failed" ? "install failed" : said);
  element.hidden = !said;
  if (said) {
    attribute(element, "class", `may ${state.phase}`);
    attribute(element, "data-sign", SIGNS[state.phase]);
    attribute(element, "title", sentence(state.because));
  }
}

// The part of a machine's page that shows its state and changes it; hidden where nothing can be armed.
export function panel(machine) {
  const badge = h("span");
  const because = h("span");
  const more = h("p", { class: "soft" });
  const arm = h("button", { type: "button", onclick: () => ask(machine, true, arm) }, "Arm…");
  const disarm = h("button", { type: "button", onclick: () => ask(machine, false, disarm) }, "Disarm…");
  const element = h("section", { class: "panel install", "aria-label": "Installation", hidden: true },
    h("div", {}, h("h2", {}, "Installation"), h("p", { role: "status" }, badge, " ", because), more),
    h("div", { class: "keep" }, arm, disarm));
  follow(() => {
    element.hidden = !arming.possible;
    const state = arming.states.get(machine) || { phase: "idle", because: "it was never armed", profile: "", tries: 0 };
    attribute(badge, "class", `may ${state.phase}`);
    attribute(badge, "data-sign", SIGNS[state.phase]);
    text(badge, state.phase);
    text(because, `${sentence(state.because)}.`);
    text(more, may(state)
      ? `Its next network boot installs ${state.profile || "what it is decided to boot"}; until ${moment(state.until)}.`
      : "What installs is not given to it: it goes on with its own disk.");
    const stays = may(state) ? disarm : arm;
    if (document.activeElement === (may(state) ? arm : disarm)) {
      stays.hidden = false;
      stays.focus();
    }
    arm.hidden = may(state);
    disarm.hidden = !may(state);
  });
  return element;
}

function field(label, control, id) {
  control.id = id;
  return h("div", { class: "field" }, h("label", { for: id }, label), control);
}

function order(machine) {
  const [unit, size] = UNITS.findLast(([, size]) => arming.within % size === 0 && arming.within / size > 1) || UNITS[0];
  const profile = h("select", {}, h("option", { value: "" }, "what it is decided to boot"),
    arming.profiles.map((name) => h("option", { value: name }, name)));
  const tries = h("input", { type: "number", min: 1, max: 100, required: true, value: arming.tries });
  const within = h("input", { type: "number", min: 1, max: 9999, required: true, value: Math.round(arming.within / size) });
  const units = h("select", { "aria-label": "Unit of time" }, UNITS.map(([name, size]) => h("option", { value: size, selected: name === unit }, name)));
  const rows = [
    arming.profiles.length ? field("Install", profile, "arm-profile") : null,
    field("In how many boots at most", tries, "arm-tries"),
    h("div", { class: "field" }, h("label", { for: "arm-within" }, "Within"), h("span", { class: "pair" }, within, units)),
  ];
  within.id = "arm-within";
  return { rows, body: () => ({ profile: profile.value, tries: Number(tries.value), within: Number(within.value) * Number(units.value) }) };
}

// A dialog that says what will happen, and does it when that is confirmed.
function ask(machine, arms, from) {
  const wanted = arms ? order(machine) : null;
  const kept = sessionStorage.getItem(TOKEN);
  const token = h("input", { type: "password", autocomplete: "current-password", required: true, "aria-describedby": "arm-where" });
  const secret = h("div", { hidden: Boolean(kept) }, field("Token", token, "arm-token"),
    h("p", { class: "soft", id: "arm-where" }, "It is on the server, in the state directory: ", h("code", {}, "sudo cat /var/lib/bootwire/web-token"), ". This tab remembers it until it is closed."));
  token.value = kept || "";
  const wrong = h("p", { class: "wrong", role: "alert" });
  const go = h("button", { class: arms ? "grave" : null }, arms ? "Arm: its disk may be wiped" : "Disarm");
  const dialog = h("dialog", { "aria-labelledby": "arm-title", "aria-describedby": "arm-what" },
    h("form", { method: "dialog", onsubmit: send },
      h("h2", { id: "arm-title" }, `${arms ? "Arm" : "Disarm"} ${machine}?`),
      h("p", { id: "arm-what" }, arms
        ? "An installation wipes its disk. It begins at this machine's next network boot, without asking again."
        : "It goes on with its own disk from its next boot. An installation that runs already is not stopped."),
      wanted ? wanted.rows : null, secret, wrong,
      h("div", { class: "choice" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), go)));
  dialog.addEventListener("close", () => {
    dialog.remove();
    (from.hidden ? from.parentElement.querySelector("button:not([hidden])") : from)?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();

  async function send(event) {
    event.preventDefault();
    text(wrong, "");
    go.disabled = true;
    const failed = await post(machine, arms ? "arm" : "disarm", wanted ? wanted.body() : {}, token.value.trim());
    go.disabled = false;
    if (!failed) {
      sessionStorage.setItem(TOKEN, token.value.trim());
      dialog.close();
      return;
    }
    text(wrong, failed.text);
    if (failed.token) {
      sessionStorage.removeItem(TOKEN);
      secret.hidden = false;
      token.focus();
      token.select();
    }
  }
}

// Null, or what went wrong; `token`: whether it is the token.
async function post(machine, what, body, token) {
  if (!/^[\x21-\x7e]+$/.test(token)) return { token: true, text: "That is not the token." };
  try {
    const response = await fetch(`/api/states/${machine.replaceAll(":", "-")}/${what}`, {
      method: "POST", credentials: "omit", body: JSON.stringify(body),
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json", Accept: "application/json" },
    });
    if (response.status === 401) return { token: true, text: "That is not the token. Nothing was changed." };
    if (!response.ok) return { text: `${sentence((await response.text()).trim()) || `Status ${response.status}`}. Nothing was changed.` };
    const state = await response.json();
    arming.states.set(machine, state);
    for (const follower of followers) follower();
    return null;
  } catch {
    return { text: "The server does not answer. Whether it was changed, this page shows when it is connected again." };
  }
}
