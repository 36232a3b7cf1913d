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

function percent(probability) {
  return (100 * probability).toFixed(1) + " %";
}

function showPrediction(prediction) {
  const parts = [element("p", output.dataset.target + ": " + prediction.prediction, "prediction")];
  if (prediction.probabilities) {
    const list = element("ul", undefined, "probabilities");
    for (const [label, probability] of Object.entries(prediction.probabilities)) {
      const item = element("li");
      const bar = element("progress");
      bar.max = 1;
      bar.value = probability;
      bar.setAttribute("aria-label", label);
      item.append(element("span", label), bar, element("span", percent(probability)));
      list.append(item);
    }
    parts.push(list);
  }
  for (const warning of prediction.warnings) parts.push(element("p", warning.field + ": " + warning.message, "warning"));
  output.replaceChildren(...parts);
}

function showError(error) {
  const parts = [element("p", error.message, "error")];
  for (const problem of error.problems || []) parts.push(element("p", problem.field + ": " + problem.message, "error"));
  output.replaceChildren(...parts);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  output.hidden = false;
  output.replaceChildren(element("p", "…"));
  try {
    const response = await fetch("/predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ rows: [rowOf(form)] }),
    });
    const body = await response.json();
    if (response.ok) showPrediction(body.predictions[0]);
    else showError(body.error);
  } catch {
    showError({ message: "The service does not answer. Is it still running?" });
  }
  output.scrollIntoView({ block: "nearest" });
});
form.addEventListener("reset", () => { output.hidden = true; });
