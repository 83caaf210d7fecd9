// Elements out of data. Text is always text: nothing here ever parses markup, so a machine's name cannot be any.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
export const s = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

export function attribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function octets(count) {
  if (count < 1e3) return `${count} B`;
  if (count < 1e6) return `${Math.floor(count / 1e3)} KB`;
  return count < 1e9 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(1)} GB`;
}

export function seconds(count) {
  if (count < 0) count = 0;
  if (count < 1) return `${count.toFixed(2)} s`;
  if (count < 100) return `${count.toFixed(1)} s`;
  if (count < 6000) return `${Math.floor(count / 60)} min ${String(Math.floor(count % 60)).padStart(2, "0")} s`;
  return `${Math.floor(count / 3600)} h ${Math.floor((count % 3600) / 60)} min`;
}

const two = (number) => String(number).padStart(2, "0");

export function clock(wall) {
  const when = new Date(wall * 1000);
  return `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
}

export function moment(wall) {
  const when = new Date(wall * 1000);
  return `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ${clock(wall)}`;
}

export const STATES = {
  running: "▸", booted: "✓", stuck: "✕", silent: "?", declined: "–", unknown: "·",
};
export const state = (name) => h("span", { class: `state ${name}`, "data-sign": STATES[name] || "·" }, name);

export function track(boot) {
  const steps = Array.from({ length: boot.steps }, (_, index) => h("i", { class: index < boot.step ? "on" : null }));
  const label = boot.step ? `stage ${boot.step} of ${boot.steps}: ${boot.stage}` : "no stage yet";
  return h("div", { class: `track ${boot.state}`, role: "img", "aria-label": label }, steps);
}

export async function get(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error((await response.text()).trim() || `status ${response.status}`);
  return response.json();
}

export const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1);

export const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;
export const machinePath = (machine) => `/machines/${encodeURIComponent(machine)}`;
