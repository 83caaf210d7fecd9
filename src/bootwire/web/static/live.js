// One stream of what happens. Views say what they want to hear; what is kept is bounded.

const KEPT = 1024; // machines; the server remembers no more
const LINES = 500;

export const live = { boots: new Map(), log: [], wall: 0, octets: 0, states: 0, connected: false };
const listeners = new Set();
let ahead = 0; // the server's clock less ours, in seconds

export const now = () => Date.now() / 1000 + ahead;

export function listen(listener) {
  listeners.add(listener);
  if (listeners.size === 1) connect();
  if (live.connected) listener("all");
}

function tell(what, data) {
  for (const listener of listeners) listener(what, data);
}

function put(boots) {
  for (const boot of boots) {
    const before = live.boots.get(boot.machine);
    if (!before || before.boot <= boot.boot) live.boots.set(boot.machine, boot);
  }
  while (live.boots.size > KEPT) live.boots.delete(live.boots.keys().next().value);
}

function connect() {
  const source = new EventSource("/api/live");
  const heard = (name, take) => source.addEventListener(name, (event) => take(JSON.parse(event.data)));
  heard("all", (all) => {
    live.boots.clear();
    put(all.boots);
    live.log = all.log.slice(-LINES);
    beat(all.now);
    live.connected = true;
    tell("all");
  });
  heard("boots", (boots) => {
    put(boots);
    tell("boots", boots);
  });
  heard("log", (lines) => {
    live.log.push(...lines);
    if (live.log.length > LINES) live.log.splice(0, live.log.length - LINES);
    tell("log", lines);
  });
  heard("now", (data) => {
    beat(data);
    tell("now");
  });
  source.onerror = () => {
    live.connected = false;
    tell("lost");
    if (source.readyState === EventSource.CLOSED) setTimeout(() => { source.close(); connect(); }, 3000);
  };
}

function beat(data) {
  ahead = data.wall - Date.now() / 1000;
  live.wall = data.wall;
  live.octets = data.octets;
  live.states = data.states;
}
