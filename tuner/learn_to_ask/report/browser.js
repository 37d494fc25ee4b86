// What lets one filter and read examples, by mouse and by keys. Texts become text nodes, never markup.
"use strict";
const byId = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function addOptions(select, texts, values = texts) {
  texts.forEach((text, place) => {
    const option = make("option", "", text);
    option.value = values[place];
    select.append(option);
  });
}

function mostFrequentFirst(texts) {
  const counts = new Map();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
}

function messageItem(role, who, text) {
  return make("li", role, make("span", "who", who), make("span", "text", text));
}

// Options: all examples, what several are called, whether one matches the filters, what stands in the list and in the
// detail for it, and what further keys do, in the list and elsewhere.
function browse({ examples, unit, readFilters, matches, label, detail: parts, keys = () => ({}) }) {
  const section = byId("examples");
  const form = section.querySelector("form");
  const list = byId("list");
  const detail = byId("detail");
  let shown = [];
  let current = 0;

  function listItem(example, index) {
    const button = make("button", "", ...label(example));
    button.type = "button";
    button.addEventListener("click", () => choose(index));
    return make("li", "", button);
  }

  function applyFilters() {
    const filters = readFilters(Object.fromEntries(new FormData(form)));
    shown = examples.filter((example) => matches(example, filters));
    list.replaceChildren(...shown.map(listItem));
    byId("count").textContent = `${shown.length} of ${examples.length} ${unit}s`;
    choose(0);
  }

  function choose(index, moveFocus = false) {
    current = Math.max(0, Math.min(index, shown.length - 1));
    list.querySelectorAll("button").forEach((button, place) => {
      button.setAttribute("aria-current", String(place === current));
      button.tabIndex = place === current ? 0 : -1;
    });
    const button = list.querySelector('[aria-current="true"]');
    if (button && moveFocus) button.focus({ preventScroll: true });
    if (button) list.scrollTop = scrollTarget(button);
    detail.replaceChildren(...(shown.length ? parts(shown[current]) : [make("p", "", `No ${unit} matches.`)]));
  }

  // Only the list scrolls, never the page under the reader.
  function scrollTarget(button) {
    const box = button.getBoundingClientRect();
    const frame = list.getBoundingClientRect();
    if (box.top < frame.top) return list.scrollTop + box.top - frame.top;
    if (box.bottom > frame.bottom) return list.scrollTop + box.bottom - frame.bottom;
    return list.scrollTop;
  }

  section.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) return;
    const inList = list.contains(event.target);
    const moves = { j: 1, k: -1, ...(inList && { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }) };
    if (Object.hasOwn(moves, event.key)) choose(current + moves[event.key], inList);
    else if (Object.hasOwn(keys(inList), event.key)) keys(inList)[event.key]();
    else return;
    event.preventDefault();
  });
  addOptions(form.elements.diagnosis, mostFrequentFirst(examples.map(({ diagnosis }) => diagnosis)));
  form.addEventListener("input", applyFilters);
  form.addEventListener("reset", () => setTimeout(applyFilters));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  section.querySelector(".browser").hidden = false;
  applyFilters();
}
