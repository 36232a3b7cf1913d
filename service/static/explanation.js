// Why the row got its prediction: a bar for each of the features with the largest contributions.
const SHOWN = 8;

// A score on its scale as people read it: a probability where it is one, else a number.
function scoreInWords(scale, score) {
  if (scale === "log_odds") return percent(1 / (1 + Math.exp(-score)), 1);
  if (scale === "probability") return percent(score, 1);
  if (scale === "log") return number(Math.expm1(score));
  return number(score);
}

const UNITS = {
  log_odds: "in log-odds",
  log_ratio: "in log-ratios of the classes' probabilities",
  probability: "in probability",
  number: "",
  log: "in logarithms",
};

function size(value) {
  const digits = Math.abs(value) < 1000 ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: 0 };
  return Math.abs(value).toLocaleString("en", digits);
}

function contributionBar(name, value, largest) {
  const item = element("li");
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("viewBox", "-50 0 100 10");
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("aria-hidden", "true");
  const width = largest ? 50 * Math.abs(value) / largest : 0;
  for (const [x, wide, kind] of [[Math.min(0, Math.sign(value) * width), width, value < 0 ? "against" : "towards"], [-0.2, 0.4, "middle"]]) {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [key, given] of Object.entries({ x, y: 0, width: wide, height: 10, class: kind })) bar.setAttribute(key, given);
    drawing.append(bar);
  }
  item.append(element("span", words(name)), drawing, element("span", (value > 0 ? "+" : value < 0 ? "\u2212" : "") + size(value)));
  return item;
}

function explanationParts(answer) {
  const row = answer.explanations[0];
  const contributions = Object.entries(row.contributions);
  const shown = contributions.slice(0, SHOWN);
  const rest = contributions.slice(SHOWN);
  if (rest.length) shown.push([rest.length + " others", rest.reduce((sum, [, value]) => sum + value, 0)]);
  const largest = Math.max(...shown.map(([, value]) => Math.abs(value)));
  const subject = row.label === undefined ? output.dataset.target : inWords(row.label);
  const from = answer.scale === "log_ratio" ? "" : ": from " + scoreInWords(answer.scale, row.base) + " on average to " + scoreInWords(answer.scale, row.value);
  const list = element("ul", undefined, "contributions");
  for (const [name, value] of shown) list.append(contributionBar(name, value, largest));
  const unit = [UNITS[answer.scale], answer.exact ? "" : "estimated"].filter(Boolean).join(", ");
  return [element("h3", "Why"), element("p", subject + from + (unit ? " (contributions " + unit + ")" : ""), "soft"), list];
}

// Adds the explanation below the answer, unless another answer is shown by then.
async function addExplanation(row) {
  const place = element("div", undefined, "explanation");
  place.append(element("p", "Why? …", "soft"));
  output.append(place);
  try {
    const response = await fetch("/explain", {
      method: "POST",
      headers: withKey({ "Content-Type": "application/json" }),
      body: JSON.stringify({ rows: [row] }),
    });
    const body = await response.json();
    place.replaceChildren(...(response.ok ? explanationParts(body) : [element("p", "No explanation: " + body.error.message, "soft")]));
  } catch {
    place.replaceChildren(element("p", "No explanation: the service does not answer.", "soft"));
  }
}
