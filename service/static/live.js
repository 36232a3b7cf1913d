// What the service does now: requests, times and predictions of all its workers, from /metrics.
const live = document.getElementById("live");
const SECONDS = 5;  // between two looks at the metrics
const WINDOW = 60;  // seconds whose requests are shown
const PREDICTING = /^(\/predict|\/predict\/lines|\/explain|\/invocations|\/v2\/.*infer|\/v1\/.*:predict)$/;
const looks = [];

function samplesOf(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = /^(\w+)\{(.*)\} (\S+)/.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of found[2].matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value.replace(/\\(.)/g, "$1");
    samples.push({ name: found[1], labels, value: Number(found[3]) });
  }
  return samples;
}

// Requests, those that failed, those answered within each bucket's time, and rows by outcome: all since the start.
function lookAt(text) {
  const look = { at: performance.now(), requests: 0, failed: 0, buckets: new Map(), outcomes: new Map() };
  for (const { name, labels, value } of samplesOf(text)) {
    if (name === "atlas_predictions_total") {
      look.outcomes.set(labels.outcome, (look.outcomes.get(labels.outcome) ?? 0) + value);
    }
    if (!PREDICTING.test(labels.url_rule ?? "")) continue;
    if (name === "flask_http_request_duration_seconds_count") {
      look.requests += value;
      if (labels.status >= "500") look.failed += value;
    } else if (name === "flask_http_request_duration_seconds_bucket") {
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      look.buckets.set(bound, (look.buckets.get(bound) ?? 0) + value);
    }
  }
  return look;
}

// The time within which this share of the requests between two looks was answered: the bound of a bucket.
function within(share, now, before) {
  const asked = now.requests - (before?.requests ?? 0);
  for (const bound of [...now.buckets.keys()].sort((a, b) => a - b)) {
    if (now.buckets.get(bound) - (before?.buckets.get(bound) ?? 0) >= share * asked) return bound;
  }
  return Infinity;
}

function time(bound) {
  return bound === Infinity ? "longer" : bound < 1 ? Number((bound * 1000).toPrecision(2)) + " ms" : bound + " s";
}

function count(value, noun) {
  return Math.round(value).toLocaleString("en") + " " + noun + (Math.round(value) === 1 ? "" : "s");
}

function show() {
  const now = looks.at(-1);
  // Workers that end take their counts along when the service restarts: then only the new counts are shown.
  const before = looks.length > 1 && looks[0].requests <= now.requests ? looks[0] : undefined;
  const asked = now.requests - (before?.requests ?? 0);
  const period = before ? "in the last " + Math.round((now.at - before.at) / 1000) + " s" : "since the start";
  const rate = before && asked ? " (" + (asked / ((now.at - before.at) / 1000)).toPrecision(2) + " a second)" : "";
  const failed = now.failed - (before?.failed ?? 0);
  const facts = {
    requests: count(asked, "request") + " " + period + rate + (failed ? ", " + Math.round(failed) + " failed" : ""),
    times: asked ? "half within " + time(within(0.5, now, before)) + ", 99 % within " + time(within(0.99, now, before)) : "–",
  };
  const rows = [...now.outcomes.values()].reduce((sum, value) => sum + value, 0);
  const shares = [...now.outcomes].map(([outcome, value]) => outcome + " " + (100 * value / rows).toFixed(1) + " %");
  facts.rows = count(rows, "row") + " since the start" + (now.outcomes.size > 1 ? ": " + shares.join(", ") : "");
  for (const [name, text] of Object.entries(facts)) live.querySelector("[data-fact=" + name + "]").textContent = text;
  live.hidden = false;
}

async function look() {
  try {
    const response = document.hidden ? undefined : await fetch("/metrics", { headers: withKey({}) });
    if (response && !response.ok) {  // whoever may not read the metrics sees no figures
      live.hidden = true;
      return;
    }
    if (response) {
      looks.push(lookAt(await response.text()));
      while (looks.length > WINDOW / SECONDS + 1) looks.shift();
      show();
    }
  } catch {
    live.hidden = true;  // the service doesn't answer; perhaps it will
  }
  setTimeout(look, SECONDS * 1000);
}

look();
