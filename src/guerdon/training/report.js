"use strict";
const drawings = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;

// All charts share one range of steps, so that what stands below each other happened at the same time.
const steps = drawings.flatMap(d => d.series.flatMap(s => [s.x[0], s.x[s.x.length - 1]]));
const first = Math.min(...steps), last = Math.max(...steps), air = Math.max((last - first) * 0.025, 0.5);

// A custom property holds `light-dark(...)`; only a colour that is in use is resolved.
const probe = document.body.appendChild(document.createElement("i"));
probe.hidden = true;
function colour(name, alpha = 1) {
  probe.style.color = `var(--${name})`;
  const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g);
  return `rgba(${r},${g},${b},${alpha})`;
}

function traces(drawing) {
  const dashes = ["solid", "dash", "dot", "dashdot"];
  const out = [];
  drawing.series.forEach((s, i) => {
    const c = `c${i % 8}`, few = s.x.length < 30 && !drawing.stacked;
    const base = { x: s.x, type: "scatter", name: s.name, legendgroup: s.name, hoverinfo: "skip", showlegend: false };
    if (drawing.stacked) {
      out.push({ ...base, y: s.y, mode: "lines", stackgroup: "all", hoverinfo: "all", showlegend: true,
        line: { width: 0.6, color: colour(c) }, fillcolor: colour(c, 0.5) });
      return;
    }
    if (s.band) {
      const middle = s.smooth || s.y;
      const edge = sign => middle.map((v, k) => v + sign * s.band[k]);
      const line = { width: 0 };
      out.push({ ...base, y: edge(-1), mode: "lines", line }, { ...base, y: edge(1), mode: "lines", line, fill: "tonexty", fillcolor: colour(c, 0.13) });
    }
    if (s.smooth) out.push({ ...base, y: s.y, mode: "lines", line: { width: 1, color: colour(c, 0.35) } });
    out.push({ ...base, y: s.smooth || s.y, mode: few ? "lines+markers" : "lines", hoverinfo: "all", showlegend: true,
      customdata: s.y, hovertemplate: s.smooth ? `%{y} <span style="opacity:.7">(step: %{customdata:${drawing.shares ? ".1%" : ".4~g"}})</span>` : "%{y}",
      marker: { size: 5, color: colour(c) }, line: { width: 2, color: colour(c), dash: dashes[Math.floor(i / 8) % 4] } });
  });
  return out;
}

function layout(drawing, plot) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true, tickfont: { size: 11 }, fixedrange: false };
  const rule = (shape, name) => ({ type: "line", layer: "below", line: { color: colour(name), width: 1.3, dash: "dot" }, ...shape });
  const shapes = drawing.marks.map(x => rule({ x0: x, x1: x, yref: "paper", y0: 0, y1: 1 }, "warn"));
  if (drawing.limit !== null) shapes.push(rule({ xref: "paper", x0: 0, x1: 1, y0: drawing.limit, y1: drawing.limit }, "warn"));
  const levels = new Set(drawing.series.flatMap(s => s.y));
  const [level] = levels;  // of a flat curve, which Plotly would draw in the middle of -1 .. 1
  const flat = levels.size === 1 && drawing.limit === null ? { range: level < 0 ? [2 * level, 0] : [0, 2 * level || 1] } : {};
  const size = root.classList.contains("paper") ? { width: plot.clientWidth, height: plot.clientHeight } : { autosize: true };
  return {
    ...size, margin: { l: 8, r: 8, t: 8, b: 4 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", shapes,
    font: { family: getComputedStyle(document.body).fontFamily, color: colour("muted"), size: 12 },
    hovermode: "x unified", hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink"), size: 12 } },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    showlegend: drawing.series.length > 1, legend: { orientation: "h", y: -0.16, yanchor: "top", x: 0, font: { size: 11 } },
    xaxis: { ...axis, range: [first - air, last + air], showgrid: false, ...(last - first <= 8 ? { tick0: 0, dtick: 1 } : {}), tickformat: ",~d", hoverformat: ",.4~r", unifiedhovertitle: { text: "step %{x}" } },
    yaxis: { ...axis, ...flat, nticks: 5, tickformat: drawing.shares ? ".0~%" : "~g", hoverformat: drawing.shares ? ".1%" : ".4~g", rangemode: drawing.stacked ? "tozero" : "normal" },
  };
}

const plots = [...document.querySelectorAll(".plot")];
function draw(plot) {
  const drawing = drawings[plot.dataset.chart];
  plot.dataset.drawn = "yes";
  Plotly.react(plot, traces(drawing), layout(drawing, plot), { displayModeBar: false, responsive: true });
}
const redraw = all => plots.filter(plot => all || plot.dataset.drawn).forEach(draw);

// One after the other, with a breath between: the page answers while fifty parts are being drawn.
(function next(i) {
  if (i === plots.length) return;
  if (!plots[i].dataset.drawn) draw(plots[i]);
  setTimeout(next, 0, i + 1);
})(0);

// Theme: as the system says, until the button is pressed. Storage may be forbidden on file pages.
const button = document.getElementById("theme");
const stored = { get() { try { return localStorage.getItem("guerdon-theme"); } catch { return null; } }, set(v) { try { localStorage.setItem("guerdon-theme", v); } catch { /* not kept */ } } };
function theme(name) {
  root.style.colorScheme = name === "auto" ? "" : name;
  button.textContent = `theme: ${name}`;
  redraw(false);
}
button.onclick = () => {
  const order = ["auto", "light", "dark"];
  const next = order[(order.indexOf(button.textContent.slice(7)) + 1) % 3];
  stored.set(next);
  theme(next);
};
theme(stored.get() || "auto");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(false));
// Paper: light, and as wide as the charts will be, because they do not change their width while being printed.
addEventListener("beforeprint", () => { root.style.colorScheme = "light"; root.classList.add("paper"); redraw(true); });
addEventListener("afterprint", () => { root.classList.remove("paper"); theme(button.textContent.slice(7)); });

// The numbers of the token under the pointer or finger.
const tip = document.getElementById("tip");
document.addEventListener("pointerover", event => {
  const token = event.target.closest?.("i[data-t]");
  tip.hidden = !token;
  if (!token) return;
  const [at, advantage, logprob, reward] = token.dataset.t.split("|");
  const text = token.textContent.replace(/\n/g, "").slice(0, 40);
  tip.textContent = `token ${at}: “${text}”\nadvantage  ${advantage}\nlogprob    ${logprob}\nreward     ${reward}`;
  const box = token.getBoundingClientRect(), size = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - size.width - 8))}px`;
  tip.style.top = `${box.bottom + size.height + 10 < innerHeight ? box.bottom + 6 : box.top - size.height - 6}px`;
});
