// The example browser of evaluations.
{
  const { names, examples } = JSON.parse(byId("data").textContent);

  const score = (value) => (value === null ? "n/a" : String(Math.round(value * 1000) / 1000));

  // Filtering

  function readFilters(filters) {
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

  function listLabel(example) {
    const rewards = names.map((name, place) => `${name} ${meanReward(example.evaluations[place])}`).join(", ");
    return [
      example.cid,
      make("small", "", `${example.truth}, ${example.diagnosis}`),
      make("small", "", `mean reward: ${rewards}`),
    ];
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
      dialogue.append(messageItem(role, example.speakers[role], content));
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

  addOptions(document.querySelector("[name=evaluation]"), names);
  browse({ examples, unit: "example", readFilters, matches: exampleMatches, label: listLabel, detail: exampleParts });
}
