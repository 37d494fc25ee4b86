// The reader of interviews: every policy's course beside the others, turn by turn, and the facts that came to light.
{
  const { names, sides, speakers, examples } = JSON.parse(byId("data").textContent);
  const UNANSWERED = "no answer in the log";
  const TOLD = {
    "in time": "stopped in time",
    "too early": "stopped too early",
    "too late": "gone on too long",
    "broken off": "never stopped",
  };
  const hidden = new Set(); // sides, by position
  let current = null;
  let turns = Infinity; // how many of each course are shown

  const share = (value) => String(Math.round(value * 100) / 100);
  const turnCount = (count) => `${count} ${count === 1 ? "turn" : "turns"}`;

  function matches(example, filters) {
    if (filters.diagnosis && example.diagnosis !== filters.diagnosis) return false;
    return example.courses.some(
      (course, place) =>
        course !== null &&
        (filters.side ? place === Number(filters.side) : place < names.length) &&
        (!filters.outcome || course.outcome === filters.outcome),
    );
  }

  function label(example) {
    const covered = names.map((name, place) => `${name} ${example.courses[place] ? share(example.courses[place].coverage) : "n/a"}`);
    return [example.session, make("small", "", example.diagnosis), make("small", "", `coverage: ${covered.join(", ")}`)];
  }

  // One session

  function detail(example) {
    if (example !== current) turns = Infinity;
    current = example;
    const opening = make("ol", "dialogue");
    for (const { role, content } of example.messages) opening.append(messageItem(role, speakers[role], content));
    const columns = make("div", "rollouts courses");
    example.courses.forEach((course, place) => {
      if (!hidden.has(place)) columns.append(column(example, course, sides[place]));
    });
    columns.tabIndex = 0;
    columns.setAttribute("role", "group");
    columns.setAttribute("aria-label", "Interviews side by side");
    byId("turn").textContent = turns === Infinity ? "all shown" : `after turn ${turns} of ${longest()}`;
    const heading = make("h3", "", example.session, make("small", "", example.diagnosis));
    return [heading, make("h4", "", "Opening"), opening, columns];
  }

  function column(example, course, name) {
    if (course === null) return make("div", "", make("h4", "", name), make("p", "", "This file does not have the session."));
    const found = course.turns.reduce((sum, turn) => sum + turn.new.length, 0);
    const told = `${TOLD[course.outcome]}: ${turnCount(course.turns.length)}, ${found} of ${example.facts.length} facts`;
    const right = course.outcome === "in time" ? "right-decision" : "wrong-decision";
    const dialogue = make("ol", "dialogue");
    course.turns.slice(0, turns).forEach((turn, place) => dialogue.append(...turnItems(example, turn, place + 1)));
    if (turns > course.turns.length || (turns === course.turns.length && turns === longest())) {
      dialogue.append(endItem(course));
    }
    return make("div", "", make("h4", "", name), make("p", right, told), checklist(example, course), dialogue);
  }

  function checklist(example, course) {
    const list = make("ul", "checklist");
    example.facts.forEach((fact, place) => {
      const turn = course.turns.findIndex((one) => one.new.includes(place)) + 1;
      const known = turn > 0 && turn <= turns;
      const box = make("span", "box", known ? "\u2611" : "\u2610");
      const when = make("span", "when", known ? `turn ${turn}` : "not known");
      list.append(make("li", known ? "known" : "", box, make("span", "text", fact), when));
    });
    list.setAttribute("aria-label", "Facts");
    return list;
  }

  function turnItems(example, turn, number) {
    const asked = messageItem("assistant", `${speakers.assistant}, turn ${number}`, turn.question || "(empty)");
    const answered = messageItem("user", speakers.user, turn.answer);
    addMarks(asked, turn.marks);
    addBadges(answered, "badge new", turn.new.map((place) => `\u2611 ${example.facts[place]}`));
    return [asked, answered];
  }

  function endItem(course) {
    if (course.end === null) return make("li", "end", course.turns.length ? "not stopped" : "nothing was said");
    const stopped = messageItem("assistant end", `${speakers.assistant} stops`, course.end);
    addMarks(stopped, course.marks);
    return stopped;
  }

  // What the log cannot answer may be a good question all the same.
  function addMarks(item, marks) {
    addBadges(item, "badge", marks.filter((mark) => mark === UNANSWERED));
    addBadges(item, "badge fault", marks.filter((mark) => mark !== UNANSWERED));
  }

  function addBadges(item, className, texts) {
    item.append(...texts.map((text) => make("div", className, text)));
  }

  // Turn by turn

  const longest = () => Math.max(0, ...(current?.courses ?? []).map((course) => course?.turns.length ?? 0));

  function show(count) {
    const before = byId("detail").querySelector(".courses");
    if (before === null) return; // no session matches the filters
    turns = count > longest() ? Infinity : Math.max(0, count);
    const { scrollLeft } = before;
    byId("detail").replaceChildren(...detail(current));
    byId("detail").querySelector(".courses").scrollLeft = scrollLeft;
  }

  const back = () => show(turns === Infinity ? longest() - 1 : turns - 1);
  const forth = () => show(turns === Infinity ? 0 : turns + 1);
  const all = () => show(Infinity);
  for (const [id, act] of Object.entries({ back, forth, all })) byId(id).addEventListener("click", act);

  sides.forEach((name, place) => {
    const box = make("input", "");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(place);
      else hidden.add(place);
      show(turns);
    });
    byId("shown").append(make("label", "", box, ` ${name}`));
  });
  addOptions(document.querySelector("[name=side]"), sides, [...sides.keys()].map(String));
  const keys = (inList) => ({ h: back, l: forth, a: all, ...(inList && { ArrowLeft: back, ArrowRight: forth }) });
  browse({ examples, unit: "session", readFilters: (filters) => filters, matches, label, detail, keys });
}
