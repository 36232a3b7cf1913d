// Where the values of the row's features came from, if the service has a feature store.
const TROUBLE = {
  slow: "The feature store didn't answer in time. Predict again: what came late is in memory now.",
  down: "The feature store can't be read. What was read before is used as long as it is valid.",
  empty: "The feature store has no values for this model. Does its materialiser run?",
  late: "The feature store is behind, so what changes from minute to minute is missing. Does its materialiser run?",
};

// How old a value was at the time that it was looked up for. What the timetable says has no age that matters.
function ageInWords(name, age) {
  if (JSON.parse(output.dataset.timetable ?? "[]").includes(name)) return "from the timetable";
  if (age === null) return "doesn't change";
  const [size, unit] = age < 90 ? [1, "second"] : age < 90 * 60 ? [60, "minute"] : age < 36 * 3600 ? [3600, "hour"] : [86400, "day"];
  const count = Math.round(age / size);
  return count + " " + unit + (count === 1 ? "" : "s") + " old";
}

function valueInWords(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" ? number(value) : value;
}

function lookedUp(features) {
  const found = Object.entries(features.looked_up);
  const part = element("div", undefined, "looked-up");
  part.append(element("h3", "Looked up"));
  if (features.trouble) part.append(element("p", TROUBLE[features.trouble] ?? features.trouble, "warning"));
  if (features.missing.length) part.append(element("p", "Missing: " + features.missing.map(words).join(", "), "soft"));
  if (!found.length) part.append(element("p", "Nothing was looked up.", "soft"));
  const list = element("ul");
  for (const [name, { value, age }] of found) {
    const item = element("li");
    item.append(element("span", words(name)), " ", element("span", valueInWords(value)), " ", element("span", ageInWords(name, age), "soft"));
    list.append(item);
  }
  if (found.length) part.append(list);
  return part;
}
