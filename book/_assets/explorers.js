/* The figures that can be touched: dials in, SVG out, in the page's own colors. What is computed is in model.js. */
(() => {
  "use strict";
  const { PI, log10, max, min, round } = Math;
  const W = 360, H = 230, BOX = { left: 50, right: 12, top: 26, bottom: 40 };

  function el(name, attributes = {}, ...children) {
    const svg = ["svg", "g", "path", "line", "text", "circle", "rect", "title"].includes(name);
    const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
    e.append(...children);
    return e;
  }
  const short = x => (x === 0 ? "0" : Math.abs(x) >= 1e4 || Math.abs(x) < 1e-3 ? x.toExponential(1) : String(+x.toPrecision(3)));
  const signs = { 0: "0", 0.25: "π/4", 0.5: "π/2", 0.75: "3π/4", 1: "π" };
  const frequency = { label: "frequency ω (rad/sample)", range: [0, PI], ticks: [0, 0.25, 0.5, 0.75, 1].map(t => [t * PI, signs[t]]) };
  const decades = (low, high) => {
    const ticks = [], step = high - low > 5 ? 2 : 1;
    for (let d = Math.ceil(low); d <= high; d += step) ticks.push([10 ** d, d < -2 || d > 4 ? `1e${d}` : String(10 ** d)]);
    return ticks;
  };

  /* One panel: axes {label, range, ticks, log} and layers {kind, points [[x, y, low?, high?]], name}. */
  function panel({ title, x, y, layers, says }) {
    const scale = (axis, from, to) => {
      const f = axis.log ? log10 : v => v, [low, high] = axis.range.map(f);
      return v => from + (to - from) * (min(max(f(v), low), high) - low) / (high - low);
    };
    const sx = scale(x, BOX.left, W - BOX.right), sy = scale(y, H - BOX.bottom, BOX.top);
    const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}. ${says}` });
    svg.append(el("text", { x: BOX.left, y: 14, class: "title" }, title));
    for (const [v, name] of x.ticks) {
      svg.append(el("line", { x1: sx(v), x2: sx(v), y1: BOX.top, y2: H - BOX.bottom, class: "grid" }));
      svg.append(el("text", { x: sx(v), y: H - BOX.bottom + 14, "text-anchor": "middle" }, name));
    }
    for (const [v, name] of y.ticks) {
      svg.append(el("line", { x1: BOX.left, x2: W - BOX.right, y1: sy(v), y2: sy(v), class: "grid" }));
      svg.append(el("text", { x: BOX.left - 5, y: sy(v) + 4, "text-anchor": "end" }, name));
    }
    svg.append(el("text", { x: (BOX.left + W - BOX.right) / 2, y: H - 8, "text-anchor": "middle" }, x.label));
    const middle = (BOX.top + H - BOX.bottom) / 2;
    svg.append(el("text", { x: 11, y: middle, "text-anchor": "middle", transform: `rotate(-90 11 ${middle})` }, y.label));
    for (const { kind, points, name } of layers) {
      if (kind === "dots")
        for (const [px, py] of points) svg.append(el("circle", { cx: sx(px), cy: sy(py), r: 2.6, class: `dot ${name}` }));
      else if (kind === "stems")
        for (const [px, py] of points) svg.append(el("line", { x1: sx(px), x2: sx(px), y1: sy(0), y2: sy(py), class: `stem ${name}` }));
      else if (kind === "bars")
        for (const [px, , low, high] of points)
          svg.append(el("line", { x1: sx(px), x2: sx(px), y1: sy(low), y2: sy(high), class: `bar ${name}` }));
      else {
        let d = points.map(([px, py], i) => `${i ? "L" : "M"}${sx(px).toFixed(1)} ${sy(py).toFixed(1)}`).join("");
        if (kind === "area") d += `L${sx(points.at(-1)[0])} ${sy(y.range[0])}L${sx(points[0][0])} ${sy(y.range[0])}Z`;
        svg.append(el("path", { d, class: `${kind} ${name}` }));
      }
    }
    return svg;
  }

  function legend(entries) {
    return el("ul", { class: "legend" }, ...entries.map(([name, text, kind = "line"]) => {
      const key = el("svg", { viewBox: "0 0 28 10", "aria-hidden": "true" },
        kind === "area" ? el("rect", { x: 0, y: 1, width: 28, height: 8, class: `area ${name}` })
          : kind === "dots" ? el("circle", { cx: 14, cy: 5, r: 3.5, class: `dot ${name}` })
            : el("path", { d: "M0 5H28", class: `line ${name}` }));
      return el("li", {}, key, text);
    }));
  }

  /* Dials {key: {label, range: [low, high], step, start, log, unit} or {label, options, start}} and the state they set. */
  function dials(host, kinds, state, changed) {
    const bar = el("div", { class: "dials" });
    for (const [key, kind] of Object.entries(kinds)) {
      const id = `${host.id}-${key}`, label = el("label", { for: id }, kind.label);
      state[key] = kind.start;
      if (kind.options) {
        const select = el("select", { id }, ...kind.options.map(([value, text]) => el("option", { value }, text)));
        select.value = kind.start;
        select.addEventListener("change", () => { state[key] = select.value; changed(); });
        bar.append(el("div", {}, label, select));
        continue;
      }
      const to = kind.log ? log10 : v => v, from = kind.log ? v => 10 ** v : v => v;
      const [low, high] = kind.range.map(to), n = kind.steps || 100;
      const input = el("input", { id, type: "range", min: 0, max: n, step: 1, value: round((to(kind.start) - low) / (high - low) * n) });
      const output = el("output", { for: id });
      const read = () => {
        state[key] = +from(low + (high - low) * input.value / n).toPrecision(4);
        output.textContent = `${short(state[key])}${kind.unit || ""}`;
        input.setAttribute("aria-valuetext", output.textContent);
      };
      input.addEventListener("input", () => { read(); changed(); });
      read();
      bar.append(el("div", {}, label, output, input));
    }
    host.append(bar);
  }

  function explorer(host, kinds, keys, draw) {
    const state = {}, panels = el("div", { class: "panels" }), finding = el("p", { class: "finding", "aria-live": "polite" });
    const changed = () => {
      const { figures, says, result } = draw(state);
      panels.replaceChildren(...figures.map(panel));
      finding.replaceChildren(...says);
      host.explorer = { state: { ...state }, result };
    };
    host.querySelector("noscript")?.remove();
    dials(host, kinds, state, changed);
    host.append(panels, legend(keys), finding);
    changed();
  }

  const zip = (x, y) => Array.from(x, (v, i) => [v, y[i]]);
  const SIZES = Array.from({ length: 25 }, (_, i) => 4 * 2 ** (i / 3)); // 4 to 1,024
  const LEVEL = 0.2;
  const STARTS = [["lin", "S4D-Lin, the default"], ["flat", "flat bank, knows no task"], ["matched", "bank matched to the task"]];
  const needs = n => (n === Infinity ? "more than 100,000" : n < 10 ? n.toFixed(1) : round(n).toLocaleString("en"));

  function spectraAndCurves(start) {
    const names = STARTS.map(([name]) => name);
    const strength = { label: "power, relative to the mean", range: [0.01, 100], log: true, ticks: decades(-2, 2) };
    const level = eta => Array.from(eta, e => e * 128); // the mean over 128 modes is one
    const samples = Object.fromEntries(names.map(name => [name, tdi.samplesFor(start[name], start.target, LEVEL)]));
    const curves = Object.fromEntries(names.map(name => [name, SIZES.map(P => tdi.bestError(start[name], start.target, P))]));
    const figures = [
      {
        title: "What the layer passes on", x: frequency, y: strength,
        says: "Power against frequency of the task and of what three layers pass on.",
        layers: [
          { kind: "area", name: "task", points: zip(tdi.omega, level(start.target.map((p, j) => p / tdi.counts[j]))) },
          ...names.map(name => ({ kind: "line", name, points: zip(tdi.omega, level(start[name])) })),
        ],
      },
      {
        title: "What that costs in examples", x: { label: "labeled examples P", range: [4, 1024], log: true, ticks: [4, 16, 64, 256, 1024].map(t => [t, String(t)]) },
        y: { label: "test error / variance", range: [0.01, 2], log: true, ticks: [0.01, 0.1, 1].map(t => [t, String(t)]) },
        says: STARTS.map(([name, text]) => `${text}: error ${short(tdi.bestError(start[name], start.target, 64))} with 64 examples`).join("; "),
        layers: names.map(name => ({ kind: "line", name, points: zip(SIZES, curves[name]) })),
      },
    ];
    return { figures, samples, curves };
  }

  const b = text => el("b", {}, text);
  const needing = samples => [
    "To bring the error down to a fifth of the target’s variance, the theory asks for ", b(needs(samples.lin)), " examples with the default, ",
    b(needs(samples.flat)), " with a flat bank and ", b(needs(samples.matched)), " with the matched one: the default needs ",
    b(`${short(+(samples.lin / samples.matched).toPrecision(2))} times`), " the examples.",
  ];
  const KEYS = [["task", "the task", "area"], ...STARTS];
  const COLORS = [["0", "white"], ["1", "red"], ["2", "very red"]];
  const WHERE = { label: "Where the task lies", range: [0.05, 3.1], steps: 61, start: 2, unit: " rad/sample" };
  const WIDTH = { label: "How wide it is", range: [0.02, 2], log: true, steps: 60, start: 0.2, unit: " rad/sample" };

  const kinds = {
    front: host => explorer(host, { center: WHERE, width: WIDTH }, KEYS, ({ center, width }) => {
      const { figures, samples, curves } = spectraAndCurves(tdi.starts(center, width, width / 4, 1));
      return { figures, says: needing(samples), result: { samples, curves } };
    }),

    task: host => explorer(host, {
      center: WHERE, width: WIDTH,
      decay: { label: "Decay of the filters", range: [0.005, 0.5], log: true, steps: 60, start: 0.05, unit: " per sample" },
      beta: { label: "Color of the input", options: COLORS, start: "1" },
    }, KEYS, ({ center, width, decay, beta }) => {
      const { figures, samples, curves } = spectraAndCurves(tdi.starts(center, width, decay, +beta));
      return { figures, says: needing(samples), result: { samples, curves } };
    }),

    filter: host => explorer(host, {
      step: { label: "Step Δ", range: [0.01, 1], log: true, steps: 80, start: 0.1 },
      im: { label: "Im A: distance of the modes", range: [0, 10], steps: 80, start: 5 },
      re: { label: "−Re A: decay", range: [0.05, 5], log: true, steps: 80, start: 0.5 },
    }, [["lin", "of the filter: four poles and their conjugates"], ["matched", "singular values of the Toeplitz matrix, 64 × 64", "dots"]], ({ step, im, re }) => {
      const f = tdi.filter(step, im, -re), grid = Array.from({ length: 257 }, (_, i) => i * PI / 256), H = grid.map(f.response);
      const top = max(...H, ...f.singular), circle = Array.from({ length: 129 }, (_, i) => [Math.cos(i * PI / 64), Math.sin(i * PI / 64)]);
      const rim = max(...f.kernel), floor = min(0, ...f.kernel), unit = [-1, 0, 1].map(t => [t, String(t)]), powers = { range: [top / 1e3, top * 1.3], log: true, ticks: decades(log10(top / 1e3), log10(top * 1.3)) };
      const poles = f.modes.flatMap(({ r, theta }) => [[r * Math.cos(theta), r * Math.sin(theta)], [r * Math.cos(theta), -r * Math.sin(theta)]]);
      const figures = [
        {
          title: "Poles", x: { label: "real part", range: [-1.85, 1.85], ticks: unit }, y: { label: "imaginary part", range: [-1.05, 1.05], ticks: unit },
          says: `Eight poles at the radius ${short(f.modes[0].r)}, ${short(step * im)} radians apart.`,
          layers: [{ kind: "line", name: "rim", points: circle }, { kind: "dots", name: "lin", points: poles }],
        },
        {
          title: "Frequency response", x: frequency, y: { label: "|H(ω)|", ...powers },
          says: `The largest response is ${short(max(...H))}, at ${short(grid[H.indexOf(max(...H))])} radians a sample.`,
          layers: [{ kind: "line", name: "lin", points: zip(grid, H) }],
        },
        {
          title: "Kernel", x: { label: "lag (samples)", range: [0, 64], ticks: [0, 16, 32, 48, 64].map(t => [t, String(t)]) },
          y: { label: "k", range: [floor, rim], ticks: [floor, 0, rim].map(t => [t, short(t)]) },
          says: `It starts at ${short(f.kernel[0])}; its largest value is ${short(rim)}.`,
          layers: [{ kind: "stems", name: "lin", points: f.kernel.map((k, l) => [l, k]) }],
        },
        {
          title: "Two spectra, sorted", x: { label: "rank", range: [1, 64], ticks: [1, 16, 32, 48, 64].map(t => [t, String(t)]) }, y: { label: "|H_L(ω)| and singular values", ...powers },
          says: `The two lie ${short(f.distance)} of the response’s norm apart.`,
          layers: [{ kind: "line", name: "lin", points: f.sampled.map((s, i) => [i + 1, s]) }, { kind: "dots", name: "matched", points: f.singular.map((s, i) => [i + 1, s]) }],
        },
      ];
      const says = [
        "Sorted, the singular values lie ", b(short(f.distance)), " of the response’s norm away from the response; the theorem allows ", b(short(f.bound)),
        ". Filters with a long memory (small Δ, small decay) lie far apart, for 64 steps are few to them.",
      ];
      return { figures, says, result: { distance: f.distance, bound: f.bound, top: max(...H) } };
    }),

    study: host => {
      const { sets, starts, sizes, runs } = JSON.parse(host.querySelector("script").textContent);
      const table = el("table", {}), measures = { loss: "test loss (nats)", accuracy: "test accuracy", gain: "gain over S4D-Lin, log ratio of losses" };
      const known = Object.fromEntries(starts), pick = Object.entries(known).filter(([name]) => !["lin"].includes(name));
      explorer(host, {
        set: { label: "Data set", options: sets, start: "forda" },
        start: { label: "Initialization", options: pick, start: "tdi" },
        measure: { label: "Measured", options: Object.entries(measures), start: "loss" },
      }, [["lin", "S4D-Lin, the default"], ["matched", "the initialization chosen"], ["lin single", "single runs, in the same colors", "dots"]], ({ set, start, measure }) => {
        const shown = [["lin", "lin"], [start, "matched"]].filter(([name]) => measure !== "gain" || name !== "lin");
        const cells = shown.flatMap(([name, look]) => sizes[set].map(n => ({ name, look, n, ...runs[set][name]?.[n]?.[measure] })).filter(cell => cell.values));
        const all = cells.flatMap(cell => [...cell.values, cell.low ?? cell.mean, cell.high ?? cell.mean]), positive = measure === "loss";
        let low = min(...all, measure === "gain" ? 0 : Infinity), high = max(...all, measure === "gain" ? 0 : -Infinity), pad = (high - low || 1) * 0.06;
        if (positive) { low = min(...cells.flatMap(cell => cell.values)) / 1.2; high = max(...cells.flatMap(cell => cell.values)) * 1.2; } else { low -= pad; high += pad; }
        const ticks = positive ? [1, 2, 5].flatMap(m => [-3, -2, -1, 0, 1].map(d => m * 10 ** d)).filter(t => t >= low && t <= high).sort((a, c) => a - c)
          : [0, 1, 2, 3, 4].map(i => low + (high - low) * i / 4);
        const shift = look => (look === "lin" ? 0.97 : 1.03);
        const layers = shown.flatMap(([, look]) => {
          const mine = cells.filter(cell => cell.look === look), at = cell => cell.n * shift(look);
          return [
            { kind: "dots", name: `${look} single`, points: mine.flatMap(cell => cell.values.map(v => [at(cell), v])) },
            { kind: "bars", name: look, points: mine.filter(cell => cell.low !== null).map(cell => [at(cell), cell.mean, cell.low, cell.high]) },
            { kind: "line", name: look, points: mine.map(cell => [at(cell), cell.mean]) },
          ];
        });
        const first = min(...sizes[set]), last = max(...sizes[set]);
        const figures = [{
          title: Object.fromEntries(sets)[set], x: { label: "training examples n", range: [first / 1.3, last * 1.3], log: true, ticks: sizes[set].map(n => [n, String(n)]) },
          y: { label: measures[measure].split(",")[0], range: [low, high], log: positive, ticks: ticks.map(t => [t, short(+t.toPrecision(2))]) },
          says: cells.map(cell => `${known[cell.name]}, ${cell.n} examples: ${short(cell.mean)}`).join("; ") || "no runs", layers,
        }];
        table.replaceChildren(
          el("caption", {}, `${Object.fromEntries(sets)[set]}: ${measures[measure]}`),
          el("thead", {}, el("tr", {}, ...["Initialization", "n", "runs", "mean", "95 % interval"].map(t => el("th", { scope: "col" }, t)))),
          el("tbody", {}, ...cells.map(cell => el("tr", {}, ...[known[cell.name], cell.n, cell.values.length, short(cell.mean),
            cell.low === null ? "–" : `${short(cell.low)} to ${short(cell.high)}`].map(t => el("td", {}, String(t)))))));
        return { figures, says: [], result: { cells } };
      });
      host.append(table);
    },
  };

  for (const host of document.querySelectorAll("[data-explorer]")) kinds[host.dataset.explorer](host);
})();
