// The form: one row to /predict, the answer back on the page.
const form = document.getElementById("form");
const output = document.getElementById("answer");

function rowOf(form) {
  const row = {};
  for (const input of form.elements) {
    if (!input.name || input.value === "") continue;
    const type = input.dataset.type;
    if (type === "numeric") row[input.name] = Number(input.value);
    else if (type === "boolean") row[input.name] = input.value === "true";
    else if (type === "datetime") row[input.name] = input.value + ("utc" in input.dataset ? "Z" : "");
    else row[input.name] = input.value;
  }
  return row;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// A column's name as people read it.
function words(name) {
  return name.replaceAll("_", " ");
}

function percent(probability, digits) {
  const shown = (100 * probability).toFixed(digits);
  if (Number(shown) === 0 && probability > 0) return "< " + (0.1 ** digits).toFixed(digits) + " %";
  if (Number(shown) === 100 && probability < 1) return "> " + (100 - 0.1 ** digits).toFixed(digits) + " %";
  return shown + " %";
}

// A label of the target in words: true becomes the target's name.
function inWords(label) {
  if (label === "true") return output.dataset.target;
  if (label === "false") return "not " + output.dataset.target;
  return output.dataset.target + " = " + label;
}

// The text of a label, a key of the probabilities: the prediction of a model of 0 and 1 is a number.
function labelOf(prediction) {
  const value = prediction.prediction;
  const texts = Object.keys(prediction.probabilities);
  return texts.find((text) => text === String(value)) ?? texts.find((text) => text !== "" && Number(text) === value);
}

function number(value) {
  const digits = Math.abs(value) < 10000 ? { maximumSignificantDigits: 5 } : { maximumFractionDigits: 0 };
  return value.toLocaleString("en", digits);
}

function bar(label, probability, digits) {
  const item = element("li");
  const drawn = element("progress");
  drawn.max = 1;
  drawn.value = probability;
  drawn.setAttribute("aria-label", label);
  item.append(element("span", label), drawn, element("span", percent(probability, digits)));
  return item;
}

// Two classes: the probability of the positive class, the threshold, and the decision that follows from both.
function showDecision(prediction, threshold) {
  const positive = output.dataset.positive;
  const probability = prediction.probabilities[positive];
  let digits = 1;  // more digits where the probability and the threshold would look the same
  while (digits < 6 && probability !== threshold && percent(probability, digits) === percent(threshold, digits)) digits++;
  const label = labelOf(prediction);
  const reached = label === positive ? "reaches" : "is below";
  const decision = element("p", "Decision: ", "decision");
  decision.append(
    element("strong", inWords(label)),
    ", because the probability " + reached + " the threshold of " + percent(threshold, digits),
  );
  const list = element("ul", undefined, "probabilities");
  list.append(bar("probability", probability, digits), bar("threshold", threshold, digits));
  list.lastChild.className = "threshold";
  return [
    element("p", inWords(positive) + ": probability " + percent(probability, digits), "prediction"), decision, list,
  ];
}

function showMostProbable(prediction) {
  const labels = Object.entries(prediction.probabilities);
  const list = element("ul", undefined, "probabilities");
  for (const [label, probability] of labels) list.append(bar(label, probability, 1));
  const decision = element("p", "Decision: ", "decision");
  const label = labelOf(prediction);
  decision.append(element("strong", inWords(label)), ", the most probable of " + labels.length + " classes");
  const headline = inWords(label) + ": probability " + percent(prediction.probabilities[label], 1);
  return [element("p", headline, "prediction"), decision, list];
}

function showPrediction(prediction) {
  let parts;
  if (!prediction.probabilities) parts = [element("p", output.dataset.target + ": " + number(prediction.prediction), "prediction")];
  else if ("threshold" in output.dataset) parts = showDecision(prediction, Number(output.dataset.threshold));
  else parts = showMostProbable(prediction);
  for (const warning of prediction.warnings) parts.push(element("p", (warning.field ? words(warning.field) + ": " : "") + warning.message, "warning"));
  output.replaceChildren(...parts);
}

// Shows at a field of the form why its value can't be used; false if the form has no such field.
function mark(problem) {
  const input = problem.field && form.elements.namedItem(problem.field);
  if (!input) return false;
  const earlier = document.getElementById(input.id + "-problem");
  const shown = element("p", (earlier ? earlier.textContent + "; " : "") + problem.message, "error");
  shown.id = input.id + "-problem";
  unmark(input);
  input.after(shown);
  input.setAttribute("aria-invalid", "true");
  const group = input.closest("details");
  if (group) group.open = true;
  return true;
}

function unmark(input) {
  input.removeAttribute("aria-invalid");
  document.getElementById(input.id + "-problem")?.remove();
}

function marked() {
  return [...form.querySelectorAll("[aria-invalid]")];
}

function showError(error) {
  const others = (error.problems ?? []).filter((problem) => !mark(problem));
  const wrong = marked().length;
  const headline = wrong ? "Not predicted: correct the " + (wrong === 1 ? "field that is" : wrong + " fields that are") + " marked." : error.message;
  const parts = [element("p", headline, "error")];
  for (const problem of others) parts.push(element("p", (problem.field ? words(problem.field) + ": " : "") + problem.message, "error"));
  output.replaceChildren(...parts);
}

// An answer at a time, or an older one could replace a newer one. What reads the page aloud waits for the answer.
function setBusy(button, busy) {
  button.disabled = busy;
  for (const part of [button, output]) part.setAttribute("aria-busy", String(busy));
}

function clear() {
  marked().forEach(unmark);
  output.replaceChildren();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const row = rowOf(form);
  const button = form.querySelector("button[type=submit]");
  const focused = document.activeElement === button;
  marked().forEach(unmark);
  output.replaceChildren(element("p", "Predicting …"));
  setBusy(button, true);
  const begun = performance.now();
  try {
    const response = await fetch("/predict", {
      method: "POST",
      headers: withKey({ "Content-Type": "application/json" }),
      body: JSON.stringify({ rows: [row] }),
    });
    const body = await response.json();
    if (response.ok) {
      const took = performance.now() - begun;
      showPrediction(body.predictions[0]);
      output.append(element("p", "answered in " + Math.max(1, Math.round(took)) + " ms", "soft took"));
      if (body.predictions[0].features) output.append(lookedUp(body.predictions[0].features));
      addExplanation(row);
    } else showError(body.error);
  } catch {
    showError({ message: "The service does not answer. Is it still running?" });
  } finally {
    setBusy(button, false);
  }
  const [wrong] = marked();
  if (wrong) wrong.focus();
  else {
    if (focused) button.focus();  // a button that is disabled loses the focus
    output.scrollIntoView({ block: "nearest" });
  }
});
form.addEventListener("input", (event) => unmark(event.target));
form.addEventListener("reset", clear);
// The browser can't show what is wrong with a field in a group that is closed.
form.addEventListener("invalid", (event) => {
  const group = event.target.closest("details");
  if (group) group.open = true;
}, true);

// Examples: a row of the training sample for each label, to begin from.
const example = document.getElementById("example");
if (example) {
  for (const option of example.options) if ("label" in option.dataset) option.textContent = inWords(option.dataset.label);
  example.addEventListener("change", () => {
    const chosen = example.selectedOptions[0].dataset.values;
    if (!chosen) return;
    for (const [name, value] of Object.entries(JSON.parse(chosen))) form.elements.namedItem(name).value = value ?? "";
    clear();
  });
  form.addEventListener("reset", () => { example.value = ""; });
}
