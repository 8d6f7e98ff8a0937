"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byNumber = new Map(data.decoders.map((each) => [each.number, each]));
const count = new Intl.NumberFormat("en");
const scored = data.decoders.filter((each) => each.score !== null);

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function milliseconds(each) {
  return `${each.ms.toPrecision(3)}${each.kind === "predicted" ? "*" : ""}`;
}

function title(each) {
  return `#${each.number} ${each.preset ? `${each.preset}: ` : ""}${each.name}`;
}

// --- an architecture, stage by stage

function bar(kind, name, share, value) {
  const row = element("div", undefined, `bar ${kind}`);
  const track = element("div", undefined, "track");
  const fill = element("div", undefined, "fill");
  fill.style.width = `${100 * share}%`;
  track.append(fill);
  row.append(element("span", name), track, element("span", value, "value"));
  return row;
}

function showDecoder(number, move) {
  const each = byNumber.get(number);
  const place = document.getElementById("decoder");
  if (!place || !each) return;
  const latency = each.stages.reduce((sum, stage) => sum + stage.ms, 0) || 1;
  const parameters = each.stages.reduce((sum, stage) => sum + stage.parameters, 0) || 1;
  const list = element("ol", undefined, "stages");
  for (const stage of each.stages) {
    const item = element("li");
    const head = element("div", undefined, "head");
    head.append(element("strong", stage.name), element("span", stage.what));
    const ms = stage.ms / latency;
    const weights = stage.parameters / parameters;
    item.append(head);
    item.append(bar("latency", "latency", ms, `${(100 * ms).toFixed(0)}%, ${stage.ms.toPrecision(2)} ms`));
    item.append(bar("parameters", "parameters", weights, count.format(stage.parameters)));
    list.append(item);
  }
  const score = each.score === null ? each.became : `${each.score.toFixed(2)} dB, ${each.became}`;
  const facts = `${milliseconds(each)} ms per frame (error ${(100 * each.error).toFixed(0)}%), `
    + `${count.format(each.parameters)} parameters, ${score}`;
  place.replaceChildren(element("p", title(each)), element("p", facts, "dim"), list);
  for (const row of document.querySelectorAll("#decoder-table tbody tr")) {
    row.classList.toggle("chosen", Number(row.dataset.number) === number);
  }
  if (move) document.getElementById("architecture").focus();
}

// --- the table of proposals

let sorting = { key: "number", up: true };

function fillTable() {
  const body = document.querySelector("#decoder-table tbody");
  if (!body) return;
  const { key, up } = sorting;
  const ordered = [...data.decoders].sort((one, other) => {
    const [a, b] = [one[key], other[key]];
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
    return (up ? order : -order) || one.number - other.number;
  });
  body.replaceChildren(...ordered.map((each) => {
    const row = element("tr", undefined, each.front ? "front" : "");
    row.dataset.number = each.number;
    const open = element("button", each.number);
    open.type = "button";
    open.setAttribute("aria-label", `show the architecture of decoder ${each.number}`);
    open.addEventListener("click", () => showDecoder(each.number, true));
    const cell = element("td");
    cell.append(open);
    const name = element("td");
    name.append(element("code", each.preset ? `${each.preset}: ${each.name}` : each.name));
    row.append(cell, name, element("td", milliseconds(each), "n"), element("td", count.format(each.parameters), "n"),
      element("td", each.score === null ? "" : each.score.toFixed(2), "n"), element("td", each.became),
      element("td", each.origin));
    return row;
  }));
  for (const button of document.querySelectorAll("#decoder-table th button")) {
    const mine = button.dataset.key === key;
    button.parentElement.setAttribute("aria-sort", mine ? (up ? "ascending" : "descending") : "none");
  }
}

for (const button of document.querySelectorAll("#decoder-table th button")) {
  button.addEventListener("click", () => {
    const { key } = button.dataset;
    sorting = { key, up: sorting.key === key ? !sorting.up : key !== "score" };
    fillTable();
  });
}

// --- charts

function layout(x, y, more) {
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("text"), size: 12 },
    margin: { l: 10, r: 10, t: 10, b: 10 }, legend: { orientation: "h", y: -0.25 }, hovermode: "closest",
    xaxis: { ...axis, title: { text: x } }, yaxis: { ...axis, title: { text: y } }, ...more,
  };
}

function points(name, chosen, symbol, hue, height) {
  return {
    name, type: "scatter", mode: "markers",
    x: chosen.map((each) => each.ms), y: chosen.map((each) => height ?? each.score),
    customdata: chosen.map((each) => each.number), text: chosen.map(title), hovertemplate: "%{text}<br>%{x:.3g} ms, "
      + (height === undefined ? "%{y:.2f} dB" : "not trained") + "<extra></extra>",
    marker: {
      color: hue, size: 10, line: { width: 2, color: hue },
      symbol: chosen.map((each) => each.kind === "predicted" && height === undefined ? `${symbol}-open` : symbol),
    },
  };
}

/** Scores that the charts show: a few that are far below all others would flatten the rest. */
function scoreRange() {
  const scores = scored.map((each) => each.score).sort((one, other) => one - other);
  const [best, median] = [scores.at(-1), scores[Math.floor(scores.length / 2)]];
  const low = Math.max(scores[0], best - Math.max(0.5, 4 * (best - median)));
  const edge = 0.08 * (best - low) + 0.02;
  return { range: [low - 2 * edge, best + edge], below: scores.filter((score) => score < low).length };
}

function frontTraces() {
  const done = scored.filter((each) => each.status === "scored");
  const line = done.filter((each) => each.front).sort((one, other) => one.ms - other.ms);
  const floor = scored.length ? scoreRange().range[0] : 0;
  const over = data.decoders.filter((each) => each.status === "over budget");
  return [
    {
      name: "front", type: "scatter", mode: "lines", hoverinfo: "skip", line: { shape: "hv", color: colour("front") },
      x: line.map((each) => each.ms), y: line.map((each) => each.score),
    },
    points("found", done.filter((each) => !each.preset), "circle", colour("good")),
    points("published design", done.filter((each) => each.preset), "diamond", colour("preset")),
    points("stopped early", scored.filter((each) => each.status === "pruned"), "x-thin", colour("stopped")),
    points("over the budget", over, "line-ns-open", colour("over"), floor),
  ].filter((trace) => trace.x.length);
}

function budgetLine() {
  return {
    shapes: [{ type: "line", x0: data.limit, x1: data.limit, y0: 0, y1: 1, yref: "paper",
      line: { dash: "dot", color: colour("over") } }],
    annotations: [{ x: Math.log10(data.limit), y: 1, yref: "paper", yanchor: "top", xanchor: "right", text: "budget",
      showarrow: false, font: { color: colour("over") } }],
  };
}

function curveTraces() {
  return scored.filter((each) => each.curve.length).map((each) => ({
    name: `#${each.number}`, type: "scatter", mode: "lines+markers", showlegend: false,
    x: each.curve.map(([step]) => step), y: each.curve.map(([, score]) => score), text: title(each),
    hovertemplate: "%{text}<br>step %{x}: %{y:.2f} dB<extra></extra>", marker: { size: 4 },
    line: { width: each.front ? 2.5 : 1, color: colour(each.front ? "front" : each.status === "pruned" ? "stopped" : "good") },
  }));
}

function charts() {
  const found = {};
  found["front-chart"] = [frontTraces(), layout("milliseconds per frame", "dB against the teacher", budgetLine())];
  found["front-chart"][1].xaxis.type = "log";
  if (scored.length) {
    const { range, below } = scoreRange();
    found["front-chart"][1].yaxis.range = range;
    const words = below === 1 ? "One score is" : `${below} scores are`;
    document.getElementById("below").textContent = below ? `${words} below the chart: a double click shows all.` : "";
  }
  found["curve-chart"] = [curveTraces(), layout("steps", "dB against the teacher")];
  const choices = [...data.importance].reverse();
  found["importance-chart"] = [[{
    type: "bar", orientation: "h", x: choices.map(([, share]) => share), y: choices.map(([name]) => name),
    marker: { color: colour("good") }, hovertemplate: "%{y}: %{x:.0%}<extra></extra>",
  }], layout("share", "")];
  const both = data.decoders.filter((each) => each.measured !== null);
  const most = Math.max(...both.flatMap((each) => [each.ms, each.measured]), 0);
  found["measured-chart"] = [[
    { type: "scatter", mode: "lines", x: [0, most], y: [0, most], hoverinfo: "skip", showlegend: false,
      line: { dash: "dot", color: colour("stopped") } },
    { ...points("decoder", both, "circle", colour("good")), y: both.map((each) => each.measured), showlegend: false,
      hovertemplate: "%{text}<br>in the search %{x:.3g} ms, measured %{y:.3g} ms<extra></extra>" },
  ], layout("milliseconds per frame in the search", "measured")];
  found["model-chart"] = [data.models.map((model) => ({
    name: model.name, type: "scatter", mode: "lines+markers", x: model.curve.map(([step]) => step),
    y: model.curve.map(([, score]) => score),
  })), layout("steps", "dB against the teacher")];
  const ranked = data.models.filter((model) => model.search_db !== null);
  found["rank-chart"] = [[{
    type: "scatter", mode: "markers", x: ranked.map((model) => model.search_db), y: ranked.map((model) => model.teacher_db),
    text: ranked.map((model) => model.name), marker: { color: colour("good"), size: 10 }, showlegend: false,
    hovertemplate: "%{text}<br>%{x:.2f} dB in the search, %{y:.2f} dB in the end<extra></extra>",
  }], layout("dB in the search", "dB in the end")];
  return Object.entries(found).filter(([id]) => document.getElementById(id));
}

function draw() {
  for (const [id, [traces, look]] of charts()) {
    Plotly.react(id, traces, look, { responsive: true, displayModeBar: false });
  }
}

async function unpack(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (each) => each.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = element("script", await new Response(stream).text());
  document.head.append(script);
}

async function start() {
  fillTable();
  const best = scored.filter((each) => each.status === "scored").sort((one, other) => other.score - one.score)[0];
  showDecoder((best ?? data.decoders[0])?.number, false);
  await unpack("plotly");
  draw();
  for (const id of ["front-chart", "measured-chart"]) {
    document.getElementById(id)?.on("plotly_click", (event) => showDecoder(event.points[0].customdata, true));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.documentElement.dataset.drawn = "yes";
}

start();
