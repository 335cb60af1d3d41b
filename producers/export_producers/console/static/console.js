// What a page does beyond links and forms: local times, copying, keys. Each page works without this script.
"use strict";

const root = document.documentElement;
root.classList.add("has-script");

function showTimes(within) {
  const local = root.dataset.clock !== "utc";
  const form = new Intl.DateTimeFormat(root.lang, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of within.querySelectorAll("time[datetime]")) {
    time.textContent = local ? form.format(new Date(time.dateTime)) : time.title;
  }
}

// How much later the clock of this browser is than that of the gateway, of which all times are.
const ahead = Date.now() - new Date(document.querySelector("#made time")?.dateTime ?? Date.now());

// Counts down to the times that elements have in data-due.
function showDue() {
  for (const element of document.querySelectorAll("[data-due]")) {
    const seconds = Math.max(0, Math.round((new Date(element.dataset.due) - Date.now() + ahead) / 1000));
    element.textContent = seconds ? element.dataset.text.replace("{seconds}", seconds) : "";
  }
}

function copy(element) {
  navigator.clipboard?.writeText(element.textContent).then(() => {
    element.classList.add("done");
    setTimeout(() => element.classList.remove("done"), 1500);
  });
}

document.addEventListener("click", (event) => {
  const element = event.target.closest(".copied");
  if (element && getSelection().isCollapsed) copy(element);
});

// Live parts

const main = document.getElementById("main");
const state = document.getElementById("live");
let source = null, paused = false;
let condition = "old", asOf = Date.now();

// Says how old the page is. A live one is of now, as long as its stream sends something.
function showAge(name = condition, at = asOf) {
  asOf = at;
  condition = name === "live" && Date.now() - asOf > 6000 ? "old" : name;
  if (!state) return;
  const seconds = Math.round((Date.now() - asOf) / 1000);
  const [count, unit] = seconds < 120 ? [seconds, "second"] : [Math.floor(seconds / 60), "minute"];
  const age = new Intl.NumberFormat(root.lang, { style: "unit", unit, unitDisplay: "short" }).format(count);
  const zone = root.dataset.clock === "utc" ? "UTC" : undefined;
  const since = new Intl.DateTimeFormat(root.lang, { timeStyle: "short", timeZone: zone }).format(asOf);
  state.textContent = state.dataset[condition].replace("{age}", age).replace("{since}", since);
  state.className = `age ${condition}`;
  document.getElementById("made").hidden = condition === "live";
}

// Changes only what differs, so that focus, selection and opened details stay.
function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType !== Node.ELEMENT_NODE) return void (old.data = fresh.data);
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const children = [...fresh.childNodes];
  children.forEach((child, index) => {
    if (old.childNodes[index]) morph(old.childNodes[index], child);
    else old.append(child);
  });
  while (old.childNodes.length > children.length) old.lastChild.remove();
}

function changePart(id, html) {
  const old = document.getElementById(id);
  if (!old || !html) return;
  const range = document.createRange();
  range.selectNode(old);
  const fresh = range.createContextualFragment(html).firstElementChild;
  if (fresh.dataset.reload && fresh.dataset.reload !== old.dataset.reload) return location.reload();
  showTimes(fresh);
  if (old.classList.contains("at")) fresh.classList.add("at");
  morph(old, fresh);
  showDue();
}

const added = new Set();

function showNew(ids) {
  const link = document.getElementById("new");
  for (const id of ids) if (id.startsWith(link?.dataset.rows) && !document.getElementById(id)) added.add(id);
  if (!link || !added.size) return;
  link.textContent = link.dataset.text.replace("{count}", added.size);
  link.hidden = false;
}

function follow() {
  if (!main.dataset.live || source || paused || document.hidden) return;
  source = new EventSource(main.dataset.live);
  let isFirst = true;
  source.addEventListener("parts", (event) => {
    const parts = JSON.parse(event.data);
    for (const [id, html] of Object.entries(parts)) changePart(id, html);
    const number = document.querySelector(".pages [aria-current=page] .badge")?.textContent;
    document.title = document.title.replace(/^(\(\d+\) )?/, number ? `(${number}) ` : "");
    showNew(Object.keys(parts).filter((id) => isFirst || !parts[id]));
    isFirst = false;
    showAge("live", Date.now());
  });
  source.addEventListener("alive", () => showAge("live", Date.now()));
  source.addEventListener("away", () => showAge("away"));
  source.addEventListener("error", (event) => {
    showAge(condition === "away" ? "away" : "old");
    // The browser tries again by itself, but not after an error status, as of a gateway without Redis.
    if (event.target.readyState !== EventSource.CLOSED) return;
    leave();
    setTimeout(follow, 5000);
  });
}

function leave() {
  source?.close();
  source = null;
}

document.addEventListener("visibilitychange", () => {
  document.hidden ? leave() : follow();
  if (!paused) showAge("old");
});
addEventListener("pagehide", leave);

// Views: addresses of this page that the visitor has named. Only this browser keeps them.

const keeper = document.querySelector("form[data-keep]");
const views = document.querySelector("[data-views]");

function showViews(change) {
  const key = `views ${location.pathname}`;
  const kept = JSON.parse(localStorage.getItem(key) ?? "{}");
  if (change) localStorage.setItem(key, JSON.stringify(change(kept)));
  views.querySelectorAll(".kept").forEach((each) => each.remove());
  for (const [name, search] of Object.entries(kept)) {
    const item = views.appendChild(document.createElement("li"));
    item.className = "kept";
    const link = item.appendChild(document.createElement("a"));
    Object.assign(link, { href: location.pathname + search, textContent: name });
    if (search === location.search) link.setAttribute("aria-current", "true");
  }
}

keeper?.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = keeper.elements.name.value.trim();
  showViews((kept) => {
    if (event.submitter.name !== "remove") return Object.assign(kept, { [name]: location.search });
    for (const each of Object.keys(kept)) if (kept[each] === location.search) delete kept[each];
    return kept;
  });
});
if (views) showViews();

// Keys

const pages = {
  o: "/console/",
  e: "/console/exports",
  f: "/console/failures",
  v: "/console/events",
  t: "/console/triggers",
  c: "/console/connections",
  w: "/console/workers",
  a: "/console/activity",
};
let leader = false;

function rows() {
  return [...document.querySelectorAll("table.list tbody tr")];
}

function moveBy(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.classList.contains("at"));
  const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + step))];
  all.forEach((row) => row.classList.toggle("at", row === next));
  (next.querySelector("a") ?? next).focus();
}

function openForm(action) {
  const form = document.querySelector(`form[action$="/${action}"]`);
  const details = form?.closest("details");
  if (!details) return document.querySelector(`button[value=${action}], [data-act=${action}]`)?.click();
  details.open = true;
  details.querySelector("button").focus();
}

const commands = {
  "?": () => document.getElementById("help")?.showModal(),
  "/": () => document.getElementById("q")?.focus(),
  "j": () => moveBy(1),
  "k": () => moveBy(-1),
  "x": () => document.querySelector("tr.at input[type=checkbox]")?.click(),
  "c": () => openForm("cancel"),
  "r": () => openForm("retry"),
  "[": () => document.querySelector("a[rel=next]")?.click(),
  ".": () => {
    paused = !paused;
    leave();
    follow();
    showAge(paused ? "paused" : "old");
  },
  "]": () => document.querySelector("a[rel=first]")?.click(),
};

function isTyping(target) {
  return target.closest("input:not([type=checkbox]), select, textarea, [contenteditable]") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.activeElement.blur();
  if (event.key === "Enter" && event.target.classList.contains("copied")) copy(event.target);
  if (root.dataset.keys === "off" || document.querySelector("dialog[open]")) return;
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  if (leader && pages[event.key]) {
    event.preventDefault();
    location.assign(pages[event.key]);
  } else if (event.key === "g") {
    leader = true;
    setTimeout(() => { leader = false; }, 1000);
    return;
  } else if (commands[event.key]) {
    event.preventDefault();
    commands[event.key]();
  }
  leader = false;
});

showTimes(document);
showDue();
showAge();
setInterval(() => {
  showDue();
  showAge();
}, 1000);
follow();
