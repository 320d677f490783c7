// Draws the state that /state has; what it means is decided by the server (partway/dashboard/view.py).
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = { stack: 260, lines: 180 };
const MARGIN = { top: 10, right: 12, bottom: 24, left: 46 };
const ICONS = { waiting: "…", running: "▶", silent: "!", ended: "■" };
const DEVICE_ICONS = { here: "●", gone: "✕", silent: "!", absent: "○", placed: "" };
const at = (id) => document.getElementById(id);
const page = { state: null, view: 0, paused: false, cursors: new Map(), failures: 0 };

function make(kind, attributes = {}, text = null, children = []) {
  const drawn = ["svg", "path", "line", "rect", "text", "g"].includes(kind);
  const element = drawn ? document.createElementNS(SVG, kind) : document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  element.append(...children);
  return element;
}

// The elements of `parent`, one for each item: kept where their keys stay, so that focus stays where it is.
function keyed(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, i) => {
    const name = key(item, i);
    let child = old.get(name);
    old.delete(name);
    if (!child) {
      child = create(item, i);
      child.dataset.key = name;
    }
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] || null);
    update(child, item, i);
  });
  for (const child of old.values()) child.remove();
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Numbers

function readable(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

function ticks(low, high, count) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => span / each <= count);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(value);
  return found;
}

// Charts

function scales(chart, width) {
  const height = HEIGHT[chart.kind];
  const tops = chart.blocks.map((_, i) => {
    const here = chart.lines.map((line) => line.values[i] ?? 0);
    return chart.kind === "stack" ? here.reduce((sum, value) => sum + value, 0) : Math.max(...here);
  });
  const over = chart.over.flatMap((line) => line.values.map((value) => value ?? 0));
  const high = Math.max(...tops, ...over, chart.mark ?? 0) * 1.08 || 1;
  const [first, last] = [chart.blocks[0], chart.blocks[chart.blocks.length - 1]];
  const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  return {
    height, high, first, last,
    x: (block) => MARGIN.left + (inner.width * (block - first)) / (last - first || 1),
    y: (value) => MARGIN.top + inner.height * (1 - value / high),
  };
}

function axes(svg, chart, scale, width) {
  for (const value of ticks(0, scale.high, 5)) {
    const y = scale.y(value);
    svg.append(make("line", { class: value ? "grid" : "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
    svg.append(make("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, readable(value)));
  }
  const whole = ticks(scale.first, scale.last, Math.max(2, Math.floor(width / 90))).filter(Number.isInteger);
  for (const block of whole) {
    const x = scale.x(block);
    svg.append(make("text", { x, y: scale.height - 6, "text-anchor": "middle" }, String(block)));
  }
}

function linePath(chart, values, scale) {
  let path = "", open = false;
  values.forEach((value, i) => {
    if (value === null) { open = false; return; }
    path += `${open ? "L" : "M"}${scale.x(chart.blocks[i]).toFixed(1)},${scale.y(value).toFixed(1)}`;
    open = true;
  });
  return path;
}

function stack(svg, chart, scale) {
  let below = chart.blocks.map(() => 0);
  chart.lines.forEach((line, k) => {
    const above = below.map((value, i) => value + (line.values[i] ?? 0));
    const up = above.map((value, i) => `${scale.x(chart.blocks[i]).toFixed(1)},${scale.y(value).toFixed(1)}`);
    const down = below.map((value, i) => `${scale.x(chart.blocks[i]).toFixed(1)},${scale.y(value).toFixed(1)}`).reverse();
    svg.append(make("path", { class: colour(chart, k), d: `M${up.join("L")}L${down.join("L")}Z` }));
    below = above;
  });
}

function draw(svg, chart) {
  const width = svg.clientWidth || svg.parentNode.clientWidth;
  if (!width) return;
  const scale = scales(chart, width);
  svg.replaceChildren();
  svg.setAttribute("height", scale.height);
  svg.setAttribute("viewBox", `0 0 ${width} ${scale.height}`);
  axes(svg, chart, scale, width);
  if (chart.kind === "stack") stack(svg, chart, scale);
  else chart.lines.forEach((line, k) => {
    svg.append(make("path", { class: colour(chart, k), d: linePath(chart, line.values, scale) }));
  });
  for (const line of chart.over) {
    for (const kind of ["halo", "over"]) svg.append(make("path", { class: kind, d: linePath(chart, line.values, scale) }));
  }
  if (chart.mark !== null) {
    const y = scale.y(chart.mark);
    svg.append(make("path", { class: "mark", d: `M${MARGIN.left},${y}H${width - MARGIN.right}` }));
  }
  const index = page.cursors.get(chart.key);
  if (index !== undefined) {
    const x = scale.x(chart.blocks[Math.min(index, chart.blocks.length - 1)]);
    svg.append(make("line", { class: "cursor", x1: x, x2: x, y1: MARGIN.top, y2: scale.height - MARGIN.bottom }));
  }
}

function colour(chart, k) {
  if (chart.kind === "stack") return `a${k % 4}`;
  return chart.lines.length === 1 ? "line only" : `line l${k % 2}`;
}

function swatch(kind) {
  const shape = kind.startsWith("a") ? make("rect", { class: kind, width: 22, height: 12 }) : make("path", { class: kind, d: "M0,6H22" });
  return make("svg", { viewBox: "0 0 22 12", "aria-hidden": "true" }, null, [shape]);
}

// All that a chart shows at one of its points: name, value, and the class of its colour.
function parts(chart, index) {
  const lines = chart.lines.map((line, k) => ({ name: line.name, value: line.values[index], kind: colour(chart, k) }));
  const over = chart.over.map((line) => ({ name: line.name, value: line.values[index], kind: "over" }));
  const mark = chart.mark === null ? [] : [{ name: chart.mark_name, value: chart.mark, kind: "mark" }];
  const items = [...lines, ...over, ...mark], high = scales(chart, 1).high;
  return items.map((item) => ({ ...item, text: rounded(item.value, high) }));
}

// A value without the digits that nobody could see in its chart.
function rounded(value, high) {
  if (value === null || value === undefined || !(high > 0)) return readable(value);
  const step = 10 ** (Math.floor(Math.log10(high)) - 4);
  return readable(Number((Math.round(value / step) * step).toPrecision(6)));
}

function legend(list, items) {
  keyed(list, items, (item) => item.name, (item) => make("li", {}, null, [swatch(item.kind), document.createTextNode(`${item.name} `), make("b")]),
    (child, item) => say(child.querySelector("b"), item.text));
}

function pointed(chart) {
  const last = chart.blocks.length - 1;
  return Math.min(page.cursors.get(chart.key) ?? last, last);
}

function showChart(panel, chart) {
  const svg = panel.querySelector(".plot"), any = chart.lines.length > 0 && chart.blocks.length > 0;
  say(panel.querySelector("h2"), chart.title);
  say(panel.querySelector(".note"), chart.note);
  svg.style.display = any ? "block" : "none";
  panel.querySelector(".legend").hidden = !any;
  panel.chart = chart;
  if (!any) return;
  const index = pointed(chart), block = chart.blocks[index];
  draw(svg, chart);
  const items = parts(chart, index), words = items.map((item) => `${item.name} ${item.text}`);
  legend(panel.querySelector(".legend"), items);
  svg.setAttribute("aria-label", `${chart.title}: block ${block}, ${words.join(", ")}`);
  say(panel.querySelector(".where"), page.cursors.has(chart.key) ? `block ${block}` : "");
}

function newChart(chart) {
  const svg = make("svg", { class: "plot", tabindex: 0, role: "img" });
  const panel = make("div", { class: "panel chart" }, null, [
    make("h2"), svg, make("ul", { class: "legend" }), make("p", { class: "note where", "aria-live": "polite" }), make("p", { class: "note" }),
  ]);
  panel.querySelector(".where").classList.remove("note");
  const move = (index) => {
    if (index === null) page.cursors.delete(chart.key);
    else page.cursors.set(chart.key, Math.max(0, Math.min(index, panel.chart.blocks.length - 1)));
    showChart(panel, panel.chart);
  };
  svg.addEventListener("keydown", (event) => {
    const here = pointed(panel.chart), far = event.shiftKey ? 10 : 1;
    const to = { ArrowLeft: here - far, ArrowRight: here + far, Home: 0, End: panel.chart.blocks.length - 1, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    move(to);
  });
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), inner = box.width - MARGIN.left - MARGIN.right;
    const share = (event.clientX - box.left - MARGIN.left) / inner;
    move(Math.round(share * (panel.chart.blocks.length - 1)));
  });
  svg.addEventListener("pointerleave", () => { if (document.activeElement !== svg) move(null); });
  svg.addEventListener("blur", () => move(null));
  return panel;
}

// Bars, tiles, facts

function showBars(panel, bars) {
  say(panel.querySelector("h2"), bars.title);
  say(panel.querySelector(".note"), [bars.note, bars.mark === null ? "" : `Dashed: ${bars.mark_name}, ${readable(bars.mark)}.`].filter(Boolean).join(" "));
  const high = Math.max(...bars.bars.map((bar) => bar.value ?? 0), bars.mark ?? 0) || 1;
  const cells = bars.bars.flatMap((bar, i) => [
    { key: `${i}n`, kind: "name", text: bar.name }, { key: `${i}t`, kind: "track", bar }, { key: `${i}v`, kind: "value", text: bar.text },
  ]);
  keyed(panel.querySelector(".rows"), cells, (cell) => cell.key, (cell) => {
    if (cell.kind !== "track") return make("span", { class: cell.kind });
    return make("div", { class: "track", "aria-hidden": "true" }, null, [make("div", { class: "fill" })]);
  }, (child, cell) => {
    if (cell.kind !== "track") { say(child, cell.text); return; }
    child.firstChild.style.width = `${(100 * Math.max(cell.bar.value ?? 0, 0)) / high}%`;
    if (bars.mark !== null && !child.querySelector(".limit")) child.append(make("div", { class: "limit" }));
    if (bars.mark !== null) child.querySelector(".limit").style.left = `${(100 * bars.mark) / high}%`;
  });
}

function newBars() {
  return make("div", { class: "panel" }, null, [make("h2"), make("div", { class: "rows" }), make("p", { class: "note" })]);
}

function showTile(item, tile) {
  item.className = tile.state;
  say(item.querySelector("b"), tile.name);
  say(item.querySelector(".word"), `${DEVICE_ICONS[tile.state]} ${tile.word}`.trim());
  item.querySelector(".track").style.display = tile.lines.length ? "block" : "none";
  item.querySelector(".fill").style.width = `${100 * tile.level}%`;
  say(item.querySelector(".lines"), tile.lines.join(", "));
}

function newTile() {
  return make("li", {}, null, [
    make("div", { class: "head" }, null, [make("b"), make("span", { class: "word" })]),
    make("div", { class: "track", "aria-hidden": "true" }, null, [make("div", { class: "fill" })]),
    make("div", { class: "lines" }),
  ]);
}

function show() {
  const state = page.state, views = state.views;
  document.title = state.title;
  say(at("title"), state.title);
  say(at("said"), state.status);
  say(at("state"), ICONS[state.state]);
  at("state").className = state.state;
  keyed(at("alerts"), state.alerts, (text) => text, (text) => make("li", {}, text), () => {});
  at("choice").hidden = views.length < 2;
  at("pause").hidden = state.every_s === null && !page.paused;
  keyed(at("view"), views, (view) => view.name, (view, i) => make("option", { value: i }, view.name), () => {});
  const view = views[Math.min(page.view, views.length - 1)];
  keyed(at("facts"), view.facts, (fact) => fact[0], () => make("div", {}, null, [make("dt"), make("dd")]), (child, [name, value]) => {
    say(child.firstChild, name);
    say(child.lastChild, value);
    child.lastChild.className = value.length > 24 ? "long" : value.length > 10 ? "medium" : "";
  });
  at("main").className = view.tiles.some((tile) => tile.state === "placed") ? "finished" : "";
  at("fleet").hidden = view.tiles.length === 0;
  keyed(at("tiles"), view.tiles, (tile) => tile.name, newTile, showTile);
  say(at("tiles-note"), view.tiles_note);
  keyed(at("charts"), view.charts, (chart) => chart.key, newChart, showChart);
  keyed(at("bars"), view.bars, (bars) => bars.key, newBars, showBars);
}

// The state, again and again

async function update() {
  let wait = 1000;
  try {
    const answer = await fetch("state");
    if (!answer.ok) throw new Error(answer.statusText);
    const state = await answer.json();
    page.failures = 0;
    if (!page.paused) { page.state = state; show(); }
    wait = state.every_s === null ? null : 1000 * state.every_s;
  } catch (error) {
    page.failures += 1;
    say(at("said"), `Partway has ended; this is the last state${page.state ? `: ${page.state.status}` : ""}`);
    say(at("state"), ICONS.ended);
    if (page.failures >= 3) wait = null;
  }
  if (wait !== null) setTimeout(update, wait);
}

at("view").addEventListener("change", (event) => { page.view = Number(event.target.value); show(); });
at("pause").addEventListener("click", () => {
  page.paused = !page.paused;
  at("pause").setAttribute("aria-pressed", String(page.paused));
  say(at("pause"), page.paused ? "Continue" : "Pause");
});
window.addEventListener("resize", () => { if (page.state) show(); });
update();
