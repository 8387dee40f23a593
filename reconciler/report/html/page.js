"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const KINDS = ["provisioning", "idle", "busy"];
const SPAN = Math.max(1, data.until - data.since);
const WIDTH = 960, LEFT = 56, PAGE = 50;
const chosen = { pool: "", user: "", run: "" };
const at = (id) => document.getElementById(id);

/* Words */
const money = (micro) => {
  const value = micro / 1e6;
  const digits = value !== 0 && Math.abs(value) < 0.01 ? 4 : 2;
  return "$" + value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
};
const priced = (micro, unknown) => money(micro) + (unknown ? ` + $? for ${lasts(unknown)}` : "");
const lasts = (seconds) => {
  if (seconds < 60) return `${Math.round(seconds)}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${String(Math.round(seconds) % 60).padStart(2, "0")}s`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}h${String(Math.floor(seconds / 60) % 60).padStart(2, "0")}m`;
  return `${Math.floor(seconds / 86400)}d${Math.floor(seconds / 3600) % 24}h`;
};
const stamp = (unix) => new Date(unix * 1000).toISOString().replace(".000Z", "Z");
const moment = (offset) => (offset === null ? "" : stamp(data.since + offset));
const day = (number) => new Date((Math.floor(data.since / 86400) + number) * 86400e3).toISOString().slice(0, 10);
const named = (list, number, none) => (number < 0 ? none : list[number]);
const runName = (number) => data.runs[number][1];
const counted = (number, noun) => `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;

/* Elements */
const node = (tag, values = {}, children = []) => {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const drawn = (tag, values = {}, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
};
const picture = (height, words, width = WIDTH) =>
  drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
const bar = (x, y, width, height, style, tip) =>
  drawn("rect", { x: x.toFixed(1), y: y.toFixed(1), width: Math.max(0, width).toFixed(1),
    height: Math.max(0, height).toFixed(1), class: style, "data-tip": tip });
const label = (x, y, text, values = {}) => drawn("text", { x, y, ...values }, text);
const legend = (entries) => node("ul", { class: "legend" },
  entries.map(([style, text]) => node("li", {}, [node("span", { class: style }), text])));
const cut = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);

/* A table of which one page is shown. `row(i)` gives the cells; `numbers` are the columns aligned right. */
const table = (place, words, heads, count, row, numbers = []) => {
  let first = 0;
  const style = (column) => (numbers.includes(column) ? "number" : "text");
  const body = node("tbody"), said = node("span", { role: "status" });
  const before = node("button", { type: "button" }, ["Previous"]), after = node("button", { type: "button" }, ["Next"]);
  const show = () => {
    const end = Math.min(count, first + PAGE), rows = [];
    for (let i = first; i < end; i++)
      rows.push(node("tr", {}, row(i).map((cell, column) => node("td", { class: style(column) }, [String(cell)]))));
    body.replaceChildren(...rows);
    said.textContent = count ? `${(first + 1).toLocaleString("en-US")} to ${end.toLocaleString("en-US")} of ${count.toLocaleString("en-US")}` : "None";
    before.disabled = first === 0;
    after.disabled = end >= count;
  };
  before.addEventListener("click", () => { first = Math.max(0, first - PAGE); show(); });
  after.addEventListener("click", () => { first += PAGE; show(); });
  before.setAttribute("aria-label", `Previous rows: ${words}`);
  after.setAttribute("aria-label", `Next rows: ${words}`);
  const head = node("tr", {}, heads.map((text, column) => node("th", { scope: "col", class: style(column) }, [text])));
  const wide = node("div", { class: "wide", tabindex: "0", role: "region", "aria-label": `Table: ${words}` },
    [node("table", {}, [node("caption", {}, [words]), node("thead", {}, [head]), body])]);
  at(place).replaceChildren(wide, node("div", { class: "pages" }, count > PAGE ? [before, after, said] : [said]));
  show();
};

/* What the filters leave */
const number = (list, name) => (name === "" ? null : list.indexOf(name));
const filtered = () => {
  const pool = number(data.pools, chosen.pool), user = number(data.users, chosen.user);
  const text = chosen.run.trim().toLowerCase();
  const byRun = text !== "" || user !== null;
  const wanted = new Set();
  data.runs.forEach((run, i) => {
    if ((user === null || run[2] === user) && (run[1].toLowerCase().includes(text) || run[0].toLowerCase().includes(text))) wanted.add(i);
  });
  const inPool = (one) => pool === null || one === pool;
  const uses = (part) => part.slice(3).some((run) => wanted.has(run));
  return {
    byRun,
    costs: data.costs.filter((row) => inPool(row[1]) && (!byRun || wanted.has(row[3]))),
    instances: data.instances.filter((row) => inPool(row[1]) && (!byRun || row[6].some(uses))),
    runs: data.runs.filter((row, i) => inPool(row[3]) && wanted.has(i)),
    pending: data.pending.filter((row) => (pool === null || row[2] === pool) &&
      (!byRun || (row[0] === "run" && [...wanted].some((run) => data.runs[run][1] === row[1])))),
    events: data.events.filter((row) => inPool(row[4]) && (!byRun || wanted.has(row[6]))),
  };
};

const showSummary = (left) => {
  let spent = 0, unknown = 0, seconds = 0, idle = 0, waste = 0;
  for (const row of left.costs) {
    spent += row[5]; unknown += row[7]; seconds += row[6];
    if (row[4] === 1) { idle += row[6]; waste += row[5]; }
  }
  const values = [
    ["Cost of the period", priced(spent, unknown)],
    ["Idle", left.byRun ? "not of a run" : `${money(waste)}, ${seconds ? Math.round(100 * idle / seconds) : 0}% of the time`],
    ["Instances", left.instances.length.toLocaleString("en-US")],
    ["Runs", left.runs.length.toLocaleString("en-US")],
    ["Running at the end, all pools", `${data.alive}, ${money(data.hourly * 1e6)}/h` + (data.unpriced_alive ? ` + ${data.unpriced_alive} × $?` : "")],
  ];
  at("summary").replaceChildren(...values.map(([name, value]) => node("div", {}, [node("dt", {}, [name]), node("dd", {}, [value])])));
  const parts = ["pool", "user", "run"].filter((key) => chosen[key].trim()).map((key) => `${key} ${chosen[key].trim()}`);
  at("filtered").textContent = (parts.length ? `Shown: ${parts.join(", ")}. ` : "Nothing is filtered. ") +
    `${counted(left.instances.length, "instance")}, ${counted(left.runs.length, "run")}, ${priced(spent, unknown)}.`;
};

/* The next number that a person divides by four with ease. */
const round = (most) => {
  const step = Math.max(most, 1e-9) / 4, power = 10 ** Math.floor(Math.log10(step));
  return 4 * power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= step * 0.999999);
};
const axis = (svg, height, most, words) => {
  for (let i = 0; i <= 4; i++) {
    const y = 10 + (height - 10) * (1 - i / 4);
    svg.append(drawn("line", { x1: LEFT, x2: WIDTH, y1: y, y2: y, class: "grid" }));
    svg.append(label(LEFT - 6, y + 4, words(most * i / 4), { "text-anchor": "end" }));
  }
};
const times = (svg, y) => {
  for (let i = 0; i <= 4; i++) {
    const text = stamp(data.since + Math.floor(SPAN * i / 4));
    svg.append(label(LEFT + (WIDTH - LEFT) * i / 4, y, SPAN > 3 * 86400 ? text.slice(5, 10) : text.slice(5, 16).replace("T", " "),
      { "text-anchor": i === 0 ? "start" : i === 4 ? "end" : "middle" }));
  }
};

const showOverview = (left) => {
  const slots = 96, step = SPAN / slots, height = 200;
  const sums = KINDS.map(() => new Float64Array(slots));
  for (const row of left.instances) for (const [start, seconds, kind] of row[6]) {
    const end = start + seconds;
    for (let i = Math.floor(start / step); i < slots && i * step < end; i++)
      sums[kind][i] += (Math.min(end, (i + 1) * step) - Math.max(start, i * step)) / step;
  }
  const totals = Array.from({ length: slots }, (_, i) => sums[0][i] + sums[1][i] + sums[2][i]);
  const peak = Math.max(0, ...totals), most = round(Math.max(1, peak)), wide = (WIDTH - LEFT) / slots;
  const average = totals.reduce((a, b) => a + b, 0) / slots;
  const svg = picture(height + 20, `Instances over time: ${average.toFixed(1)} on average, at most ${peak.toFixed(1)} in an interval of ${lasts(step)}. The table has the numbers.`);
  axis(svg, height, most, (value) => String(Number(value.toFixed(2))));
  for (let i = 0; i < slots; i++) {
    let y = height;
    for (const kind of [2, 1, 0]) {
      const tall = (height - 10) * sums[kind][i] / most;
      if (!tall) continue;
      y -= tall;
      svg.append(bar(LEFT + i * wide, y, wide - 1, tall, `k${kind}`, `${moment(Math.floor(i * step))}\n${sums[kind][i].toFixed(1)} ${KINDS[kind]}, ${totals[i].toFixed(1)} in all`));
    }
  }
  times(svg, height + 16);
  at("overview").replaceChildren(svg, legend(KINDS.map((kind, i) => [`k${i}`, kind])));
  table("overview-table", "average number of instances in each interval", ["From", "Provisioning", "Idle", "Busy", "All"], slots,
    (i) => [moment(Math.floor(i * step)), ...sums.map((one) => one[i].toFixed(1)), totals[i].toFixed(1)], [1, 2, 3, 4]);
};

/* One line an instance: provisioning is low, idle is half as tall as busy, so that no picture hangs on colour. */
let firstBar = 0;
const partTip = (row, part) => `${row[0]}, ${KINDS[part[2]]} for ${lasts(part[1])}` +
  `\nfrom ${moment(part[0])}\nto ${moment(part[0] + part[1])}` + (part.length > 3 ? `\n${part.slice(3).map(runName).join(", ")}` : "");
const showBars = (left) => {
  const rows = left.instances.slice(firstBar, firstBar + PAGE), tall = 18, start = 170;
  const svg = picture(rows.length * tall + 24, `Timelines of ${counted(rows.length, "instance")}. The table has the same facts.`);
  const from = Math.min(SPAN, ...rows.map((row) => row[6][0][0]));
  const until = Math.max(from + 60, ...rows.map((row) => row[6].at(-1)[0] + row[6].at(-1)[1]));
  const scale = (WIDTH - start) / (until - from);
  rows.forEach((row, i) => {
    svg.append(label(0, i * tall + 13, cut(row[0], 26), { class: "name" }));
    for (const part of row[6]) {
      const high = [4, 7, 14][part[2]];
      svg.append(bar(start + (part[0] - from) * scale, i * tall + 16 - high, Math.max(1, part[1] * scale), high, `k${part[2]}`, partTip(row, part)));
    }
  });
  for (let i = 0; i <= 4; i++)
    svg.append(label(start + (WIDTH - start) * i / 4, rows.length * tall + 18, moment(Math.floor(from + (until - from) * i / 4)).slice(5, 16).replace("T", " "),
      { "text-anchor": i === 0 ? "start" : i === 4 ? "end" : "middle" }));
  at("bars").replaceChildren(svg, legend(KINDS.map((kind, i) => [`k${i}`, kind])));
  const count = left.instances.length;
  at("bars-said").textContent = count ? `Instances ${firstBar + 1} to ${Math.min(count, firstBar + PAGE)} of ${count.toLocaleString("en-US")}` : "No instances";
  at("bars-before").disabled = firstBar === 0;
  at("bars-after").disabled = firstBar + PAGE >= count;
};
const sumOf = (row, kind) => row[6].reduce((sum, part) => sum + (part[2] === kind ? part[1] : 0), 0);
const showInstances = (left) => {
  showBars(left);
  table("bars-table", "instances", ["Instance", "Pool", "Where", "Type", "From", "Provisioning", "Idle", "Busy", "Runs", "Why it ended"],
    left.instances.length, (i) => {
      const row = left.instances[i], runs = [...new Set(row[6].flatMap((part) => part.slice(3)))];
      return [row[0], named(data.pools, row[1], ""), named(data.places, row[2], ""), named(data.types, row[3], "") + (row[4] ? " spot" : ""),
        moment(row[6][0][0]), lasts(sumOf(row, 0)), lasts(sumOf(row, 1)), lasts(sumOf(row, 2)),
        runs.slice(0, 4).map(runName).join(", ") + (runs.length > 4 ? ` and ${runs.length - 4} more` : ""), row[5]];
    }, [5, 6, 7]);
};

const showDays = (left) => {
  const last = Math.floor((data.until - 1) / 86400) - Math.floor(data.since / 86400), days = Math.max(1, last + 1);
  const pools = new Map();
  const grid = new Map();
  for (const row of left.costs) {
    pools.set(row[1], (pools.get(row[1]) || 0) + row[5]);
    const key = `${row[0]} ${row[1]}`, sum = grid.get(key) || [0, 0];
    sum[0] += row[5]; sum[1] += row[7];
    grid.set(key, sum);
  }
  const order = [...pools].sort((a, b) => b[1] - a[1]).map(([pool]) => pool);
  const series = (pool) => Math.min(7, order.indexOf(pool));
  const total = (i) => order.reduce((sum, pool) => sum + (grid.get(`${i} ${pool}`) || [0])[0], 0);
  const totals = Array.from({ length: days }, (_, i) => total(i));
  const most = round(Math.max(1e4, ...totals)), height = 200, wide = (WIDTH - LEFT) / days;
  const svg = picture(height + 20, `Cost per day and pool: ${money(totals.reduce((a, b) => a + b, 0))} in ${counted(days, "day")}, at most ${money(Math.max(0, ...totals))} a day. The table has the numbers.`);
  axis(svg, height, most, (value) => (value >= 1e9 ? `$${Number((value / 1e9).toFixed(2))}k` : most >= 4e6 ? `$${Number((value / 1e6).toFixed(2))}` : money(value)));
  const every = Math.ceil(days / 15);
  for (let i = 0; i < days; i++) {
    let y = height;
    for (const pool of order) {
      const [spent, unknown] = grid.get(`${i} ${pool}`) || [0, 0], tall = (height - 10) * spent / most;
      if (!tall) continue;
      y -= tall;
      svg.append(bar(LEFT + i * wide + 1, y, Math.max(1, wide - 2), tall, `s${series(pool)}`, `${day(i)}, pool ${data.pools[pool]}\n${priced(spent, unknown)}`));
    }
    if (i % every === 0) svg.append(label(LEFT + (i + 0.5) * wide, height + 16, day(i).slice(5), { "text-anchor": "middle" }));
  }
  const shown = order.slice(0, 7).map((pool, i) => [`s${i}`, `pool ${data.pools[pool]}`]);
  at("days").replaceChildren(svg, legend(order.length > 7 ? [...shown, ["s7", counted(order.length - 7, "other pool")]] : shown));
  const rows = [...grid].map(([key, sum]) => [...key.split(" ").map(Number), ...sum]).sort((a, b) => a[0] - b[0] || b[2] - a[2]);
  table("days-table", "cost of each day and pool", ["Day (UTC)", "Pool", "Cost"], rows.length,
    (i) => [day(rows[i][0]), data.pools[rows[i][1]], priced(rows[i][2], rows[i][3])], [2]);
};

const showShares = (left, place, column, name, words) => {
  const found = new Map();
  for (const row of left.costs) {
    const key = column === 1 || row[4] === 2 ? String(row[column]) : KINDS[row[4]];
    const sum = found.get(key) || [0, 0, 0];
    sum[0] += row[5]; sum[1] += row[6]; sum[2] += row[7];
    found.set(key, sum);
  }
  const rows = [...found].sort((a, b) => b[1][0] - a[1][0] || b[1][1] - a[1][1]);
  const text = (key) => (isNaN(key) ? `(${key})` : name(Number(key)));
  const top = rows.slice(0, 12), tall = 24, wide = 320, most = Math.max(1, ...top.map(([, sum]) => sum[0]));
  const svg = picture(Math.max(1, top.length) * tall, `Cost per ${words}: ${top.slice(0, 3).map(([key, sum]) => `${text(key)} ${money(sum[0])}`).join(", ") || "nothing"}. The table has all.`, wide);
  top.forEach(([key, sum], i) => {
    const tip = `${text(key)}\n${priced(sum[0], sum[2])}, ${lasts(sum[1])}`;
    svg.append(label(0, i * tall + 12, cut(text(key), 30), { class: "name" }), label(wide, i * tall + 12, money(sum[0]), { "text-anchor": "end" }),
      bar(0, i * tall + 15, Math.max(1, wide * sum[0] / most), 5, isNaN(key) ? "k" + KINDS.indexOf(key) : "s0", tip));
  });
  at(place).replaceChildren(svg);
  table(`${place}-table`, `cost of each ${words}`, [words[0].toUpperCase() + words.slice(1), "Time", "Cost"], rows.length,
    (i) => [text(rows[i][0]), lasts(rows[i][1][1]), priced(rows[i][1][0], rows[i][1][2])], [1, 2]);
};

const LIMITS = [[60, "under 1m"], [300, "1m to 5m"], [900, "5m to 15m"], [3600, "15m to 1h"], [6 * 3600, "1h to 6h"], [Infinity, "over 6h"]];
const waited = (row) => (row[4] === null ? null : row[5] !== null ? row[5] - row[4] : row[6] !== null ? null : SPAN - row[4]);
const showRuns = (left) => {
  const counts = LIMITS.map(() => 0);
  for (const row of left.runs) {
    const wait = waited(row);
    if (wait !== null) counts[LIMITS.findIndex(([limit]) => wait < limit)] += 1;
  }
  const retried = left.runs.filter((row) => row[7] > 1).length, most = round(Math.max(4, ...counts)), wide = (WIDTH - LEFT) / counts.length, height = 140;
  const svg = picture(height + 20, `How long runs waited until they started: ${LIMITS.map(([, text], i) => `${text}: ${counts[i]}`).join("; ")}.`);
  axis(svg, height, most, (value) => (Number.isInteger(value) ? String(value) : ""));
  counts.forEach((count, i) => {
    const tall = (height - 10) * count / most;
    if (count) svg.append(bar(LEFT + i * wide + 8, height - tall, wide - 16, tall, "s0", `${counted(count, "run")} waited ${LIMITS[i][1]}`));
    svg.append(label(LEFT + (i + 0.5) * wide, height + 16, LIMITS[i][1], { "text-anchor": "middle" }));
  });
  at("runs").replaceChildren(svg, node("p", { class: "soft" }, [`${counted(retried, "run")} needed more than one attempt.`]));
  const rows = [...left.runs].sort((a, b) => (waited(b) || 0) - (waited(a) || 0));
  table("runs-table", "runs, the longest wait first", ["Run", "User", "Pool", "Submitted", "Waited", "Ran", "Attempts", "Status", "Reason"], rows.length,
    (i) => {
      const row = rows[i], wait = waited(row), end = row[6] === null ? SPAN : row[6];
      return [row[1], named(data.users, row[2], ""), named(data.pools, row[3], ""), moment(row[4]), wait === null ? "" : lasts(wait),
        row[5] === null ? "" : lasts(end - row[5]), row[7] || "", row[8], row[9]];
    }, [4, 5, 6]);
};

const showRest = (left) => {
  table("pending-table", "what is pending at the end of the period", ["What", "Name", "Pool", "Since", "Reason"], left.pending.length,
    (i) => { const row = left.pending[i]; return [row[0], row[1], named(data.pools, row[2], ""), row[3] ? stamp(row[3]) : "", row[4]]; });
  const missing = data.events_total - data.events.length;
  at("events-said").textContent = missing ? `The newest ${data.events.length.toLocaleString("en-US")} of ${data.events_total.toLocaleString("en-US")} events. All of them: dstack events --since ${stamp(data.since).slice(0, 10)}` : "";
  table("events-table", "events, the newest first", ["Time", "Event", "Subject", "Pool", "User", "By", "Detail"], left.events.length,
    (i) => { const row = left.events[i]; return [moment(row[0]), row[1], `${row[2]} ${row[3]}`.trim(), named(data.pools, row[4], ""), named(data.users, row[5], ""), row[7], row[8]]; });
};

const show = () => {
  const left = filtered();
  firstBar = 0;
  showSummary(left);
  showOverview(left);
  showInstances(left);
  showDays(left);
  showShares(left, "by-pool", 1, (i) => data.pools[i], "pool");
  showShares(left, "by-user", 2, (i) => named(data.users, i, "(none)"), "user");
  showShares(left, "by-run", 3, runName, "run");
  showRuns(left);
  showRest(left);
};

for (const [id, list] of [["pool", data.pools], ["user", data.users]])
  at(id).append(...[...list].sort().map((name) => node("option", { value: name }, [name])));
for (const id of ["pool", "user"]) at(id).addEventListener("change", () => { chosen[id] = at(id).value; show(); });
let typing = 0;
at("run").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { chosen.run = at("run").value; show(); }, 150);
});
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("filters").addEventListener("reset", () => { for (const key of Object.keys(chosen)) chosen[key] = ""; show(); });
at("theme").addEventListener("change", () => {
  if (at("theme").value) document.documentElement.dataset.theme = at("theme").value;
  else delete document.documentElement.dataset.theme;
});
at("bars-before").addEventListener("click", () => { firstBar = Math.max(0, firstBar - PAGE); showBars(filtered()); });
at("bars-after").addEventListener("click", () => { firstBar += PAGE; showBars(filtered()); });
document.addEventListener("pointermove", (event) => {
  const found = event.target.closest ? event.target.closest("[data-tip]") : null, tip = at("tip");
  tip.hidden = !found;
  if (!found) return;
  tip.textContent = found.dataset.tip;
  tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 12, innerHeight - tip.offsetHeight - 8)}px`;
});
addEventListener("scroll", () => { at("tip").hidden = true; }, true);
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const one of opened) one.open = true;
});
addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
show();
document.documentElement.dataset.ready = "yes";
