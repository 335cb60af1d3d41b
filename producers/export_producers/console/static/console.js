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

// Keys

const pages = { o: "/console/", e: "/console/exports" };
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
  if (!details) return;
  details.open = true;
  details.querySelector("button").focus();
}

const commands = {
  "/": () => document.getElementById("q")?.focus(),
  "j": () => moveBy(1),
  "k": () => moveBy(-1),
  "c": () => openForm("cancel"),
  "r": () => openForm("retry"),
  "[": () => document.querySelector("a[rel=next]")?.click(),
  "]": () => document.querySelector("a[rel=first]")?.click(),
};

function isTyping(target) {
  return target.closest("input, select, textarea, [contenteditable]") !== null;
}

document.addEventListener("keydown", (event) => {
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
  } else if (event.key === "Enter" && event.target.classList.contains("copied")) {
    copy(event.target);
  }
  leader = false;
});

showTimes(document);
