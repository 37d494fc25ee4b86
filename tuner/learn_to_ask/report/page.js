// The example browser. Texts become text nodes, never markup.
"use strict";
{
  const { names, examples } = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const section = byId("examples");
  const form = section.querySelector("form");
  const list = byId("list");
  const detail = byId("detail");
  let shown = [];
  let current = 0;

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  const score = (value) => (value === null ? "n/a" : String(Math.round(value * 1000) / 1000));

  function addOptions(select, texts) {
    for (const text of texts) {
      const option = make("option", "", text);
      option.value = text;
      select.append(option);
    }
  }

  // Filtering

  function readFilters() {
    const filters = Object.fromEntries(new FormData(form));
    for (const bound of ["from", "to"]) filters[bound] = filters[bound] === "" ? null : Number(filters[bound]);
    return filters;
  }

  function rolloutMatches(rollout, truth, filters) {
    const holds = {
      "": true,
      continue: rollout.decision === "continue",
      stop: rollout.decision === "stop",
      right: rollout.decision === truth,
      wrong: rollout.decision !== truth,
      failed: rollout.reward === null,
    };
    const value = rollout[filters.score];
    const bounded = filters.from !== null || filters.to !== null;
    const within = value !== null && value >= (filters.from ?? -Infinity) && value <= (filters.to ?? Infinity);
    return holds[filters.decision] && (!bounded || within);
  }

  function exampleMatches(example, filters) {
    if (filters.truth && example.truth !== filters.truth) return false;
    if (filters.diagnosis && example.diagnosis !== filters.diagnosis) return false;
    if (!filters.evaluation && !filters.decision && filters.from === null && filters.to === null) return true;
    return example.evaluations.some(
      (rollouts, index) =>
        rollouts !== null &&
        (!filters.evaluation || names[index] === filters.evaluation) &&
        rollouts.some((rollout) => rolloutMatches(rollout, example.truth, filters)),
    );
  }

  // The list

  function meanReward(rollouts) {
    const rewards = (rollouts ?? []).map((rollout) => rollout.reward).filter((reward) => reward !== null);
    return rewards.length ? score(rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length) : "n/a";
  }

  function listButton(example, index) {
    const rewards = names.map((name, place) => `${name} ${meanReward(example.evaluations[place])}`).join(", ");
    const button = make("button", "", example.cid, make("small", "", `${example.truth}, ${example.diagnosis}`));
    button.append(make("small", "", `mean reward: ${rewards}`));
    button.type = "button";
    button.addEventListener("click", () => choose(index));
    return make("li", "", button);
  }

  function applyFilters() {
    const filters = readFilters();
    shown = examples.filter((example) => exampleMatches(example, filters));
    list.replaceChildren(...shown.map(listButton));
    byId("count").textContent = `${shown.length} of ${examples.length} examples`;
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
    detail.replaceChildren(...(shown.length ? exampleParts(shown[current]) : [make("p", "", "No example matches.")]));
  }

  // Only the list scrolls, never the page under the reader.
  function scrollTarget(button) {
    const box = button.getBoundingClientRect();
    const frame = list.getBoundingClientRect();
    if (box.top < frame.top) return list.scrollTop + box.top - frame.top;
    if (box.bottom > frame.bottom) return list.scrollTop + box.bottom - frame.bottom;
    return list.scrollTop;
  }

  // One example

  function exampleParts(example) {
    const facts = make("dl", "facts");
    for (const [term, text] of [
      ["diagnosis", example.diagnosis],
      ["right decision", example.truth],
      ["reference information", example.info || "none"],
    ]) {
      facts.append(make("dt", "", term), make("dd", "", text));
    }
    const dialogue = make("ol", "dialogue");
    for (const { role, content } of example.messages) {
      const who = make("span", "who", example.speakers[role]);
      dialogue.append(make("li", role, who, make("span", "text", content)));
    }
    const columns = names.map((name, index) => column(name, example.evaluations[index], example.truth));
    const rollouts = make("div", "rollouts", ...columns);
    rollouts.tabIndex = 0;
    rollouts.setAttribute("role", "group");
    rollouts.setAttribute("aria-label", "Rollouts side by side");
    return [make("h3", "", example.cid), facts, dialogue, rollouts];
  }

  function column(name, rollouts, truth) {
    const parts = rollouts === null ? [make("p", "", "This evaluation does not have the sample.")] : rollouts.map(card);
    return make("div", "", make("h4", "", name), ...parts);

    function card(rollout) {
      const right = rollout.decision === truth;
      const verdict = `${rollout.decision === "stop" ? "stopped" : "continued"}, ${right ? "right" : "wrong"}`;
      const element = make(
        "article",
        "rollout",
        make("p", right ? "right-decision" : "wrong-decision", verdict),
        make("p", "text", rollout.text || "(empty)"),
        make("p", "scores", scoresLine(rollout)),
      );
      if (rollout.think) element.append(make("p", "reasoning text", `Grader: ${rollout.think}`));
      for (const again of rollout.regrades) {
        const scores = `content ${score(again.content_score)}, format ${score(again.format_score)}`;
        element.append(make("p", "reasoning text", `Graded again: ${scores}. ${again.think}`));
      }
      return element;
    }
  }

  function scoresLine(rollout) {
    if (rollout.reward === null) return "grading failed: no scores";
    const parts = ["reward", "action", "content", "format"].map((key) => `${key} ${score(rollout[key])}`);
    return parts.join(" · ");
  }

  // Keys and start

  section.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) return;
    const inList = list.contains(event.target);
    const moves = { j: 1, k: -1, ...(inList && { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }) };
    if (!Object.hasOwn(moves, event.key)) return;
    event.preventDefault();
    choose(current + moves[event.key], inList);
  });

  const counts = new Map();
  for (const { diagnosis } of examples) counts.set(diagnosis, (counts.get(diagnosis) ?? 0) + 1);
  const diagnoses = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
  addOptions(form.elements.diagnosis, diagnoses);
  addOptions(form.elements.evaluation, names);
  form.addEventListener("input", applyFilters);
  form.addEventListener("reset", () => setTimeout(applyFilters));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  section.querySelector(".browser").hidden = false;
  applyFilters();
}
