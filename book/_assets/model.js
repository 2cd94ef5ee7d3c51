/* What the explorers compute, as `tdi_lib` does; tests/test_pages.py compares the two in a browser. */
window.tdi = (() => {
  "use strict";
  const { PI, abs, cos, exp, hypot, log, min, sin, sqrt } = Math;
  const range = (n, f) => Array.from({ length: n }, (_, i) => f(i));
  const sum = (n, f) => { let s = 0; for (let i = 0; i < n; i++) s += f(i); return s; };

  /* A task on sequences of 128 steps: its modes are the frequencies of the DFT, and all but two stand for a pair. */
  const L = 128, F = L / 2 + 1, CHANNELS = 32, NOISE = 0.09;
  const omega = range(F, j => 2 * PI * j / L);
  const counts = range(F, j => (j % (F - 1) ? 2 : 1));
  const RIDGES = range(13, i => 10 ** (i / 2 - 5)); // relative to the mean of the kernel's diagonal

  const apart2 = (r, angle) => (1 - r) ** 2 + 4 * r * sin(angle / 2) ** 2; // |1 - r exp(i angle)|²
  const passed = (r, theta, w) => 1 / apart2(r, theta - w) + 1 / apart2(r, theta + w); // a pair of modes, random phase
  const scaled = eta => { const total = sum(F, j => counts[j] * eta[j]); return eta.map(e => e / total); };

  const inputPower = beta => omega.map(w => (w + 0.2) ** -beta);
  const bell = (center, width) => w => exp(-((w - center) ** 2) / (2 * width ** 2));

  /* How the target's variance, one, is spread over the modes (with both signs of a frequency in one entry). */
  function taskPower(center, width) {
    const raw = omega.map((w, j) => counts[j] * bell(center, width)(w)), total = sum(F, j => raw[j]);
    return raw.map(p => p / total);
  }

  /* Mean of |H_L|² of S4D-Lin (32 pairs of modes, 16 steps between 0.001 and 0.1) over its random output weights. */
  const defaultPower = omega.map(w => sum(16, k => {
    const step = 0.001 * 100 ** ((k + 0.5) / 16), r = exp(-step / 2);
    return sum(32, n => {
      const theta = step * PI * n, b2 = apart2(r, theta) / (0.25 + (PI * n) ** 2);
      return b2 * apart2(r ** L, L * theta) * passed(r, theta, w);
    });
  }) / 16);

  /* Centers of the channels: the quantiles of a density over 0 to pi. */
  function quantiles(density) {
    const n = 2048, cumulative = [0];
    for (let i = 0; i < n; i++) cumulative.push(cumulative[i] + density((i + 0.5) * PI / n));
    let i = 0;
    return range(CHANNELS, h => {
      const rank = (h + 0.5) / CHANNELS * cumulative[n];
      while (cumulative[i + 1] < rank) i++;
      return (i + (rank - cumulative[i]) / (cumulative[i + 1] - cumulative[i])) * PI / n;
    });
  }

  /* Eigenvalues of a bank of channels that all pass on the same power, each a resonance of one decay. */
  function bank(centers, decay, input) {
    const channels = centers.map(theta => scaled(omega.map((w, j) => passed(exp(-decay), theta, w) * input[j])));
    return omega.map((_, j) => sum(CHANNELS, h => channels[h][j]) / CHANNELS);
  }

  function kappaOf(eta, P, ridge) {
    const excess = t => ridge * exp(-t) + sum(F, j => counts[j] * eta[j] / (exp(t) + P * eta[j])) - 1;
    let high = log(ridge + sum(F, j => counts[j] * eta[j])), low = high;
    while (excess(low) < 0) low -= 4;
    for (let i = 0; i < 60 && high - low > 1e-13; i++) {
      const t = (low + high) / 2;
      if (excess(t) > 0) low = t; else high = t;
    }
    return exp((low + high) / 2);
  }

  /* The error of chapter 05, at one ridge and at the best of RIDGES. */
  function errorAt(eta, target, P, ridge, noise = NOISE) {
    const kappa = kappaOf(eta, P, ridge);
    const gamma = P * sum(F, j => counts[j] * (eta[j] / (kappa + P * eta[j])) ** 2);
    return (sum(F, j => target[j] * (kappa / (kappa + P * eta[j])) ** 2) + gamma * noise) / (1 - gamma);
  }
  const bestError = (eta, target, P) => min(...RIDGES.map(ridge => errorAt(eta, target, P, ridge)));

  /* Samples until the error is down to a level; infinite beyond 100,000. */
  function samplesFor(eta, target, level) {
    let low = 0, high = log(1e5);
    if (bestError(eta, target, 1e5) > level) return Infinity;
    for (let i = 0; i < 18; i++) {
      const t = (low + high) / 2;
      if (bestError(eta, target, exp(t)) > level) low = t; else high = t;
    }
    return exp(high);
  }

  function starts(center, width, decay, beta) {
    const input = inputPower(beta), target = taskPower(center, width);
    return {
      input: scaled(input),
      target,
      lin: scaled(defaultPower.map((p, j) => p * input[j])),
      flat: bank(quantiles(() => 1), decay, input),
      matched: bank(quantiles(bell(center, width)), decay, input),
    };
  }

  /* A small filter: n modes with A = re + i im (0, 1, 2, ...), B = C = 1, zero-order hold. */
  function filter(step, im, re, n = 4, length = 64) {
    const modes = range(n, k => {
      const r = exp(step * re), theta = step * im * k, den = re ** 2 + (im * k) ** 2;
      const x = r * cos(theta) - 1, y = r * sin(theta); // a - 1, over A:
      return { r, theta, cx: (x * re + y * im * k) / den, cy: (y * re - x * im * k) / den };
    });
    const kernel = range(length, l => 2 * sum(n, k => {
      const { r, theta, cx, cy } = modes[k];
      return r ** l * (cx * cos(l * theta) - cy * sin(l * theta));
    }));
    const term = (cx, cy, r, angle) => { // c / (1 - r exp(i angle))
      const x = 1 - r * cos(angle), y = -r * sin(angle), d = x * x + y * y;
      return [(cx * x + cy * y) / d, (cy * x - cx * y) / d];
    };
    const response = w => {
      let x = 0, y = 0;
      for (const { r, theta, cx, cy } of modes)
        for (const [u, v] of [term(cx, cy, r, theta - w), term(cx, -cy, r, -theta - w)]) { x += u; y += v; }
      return hypot(x, y);
    };
    const sampled = range(length, j => hypot(
      sum(length, l => kernel[l] * cos(2 * PI * j * l / length)),
      sum(length, l => kernel[l] * sin(2 * PI * j * l / length)))).sort((a, b) => b - a);
    const singular = singularValues(range(length, c => range(length, r => (r < c ? 0 : kernel[r - c]))));
    const energy = sum(length, l => kernel[l] ** 2);
    return {
      modes, kernel, response, sampled, singular,
      distance: sqrt(sum(length, j => (singular[j] - sampled[j]) ** 2) / sum(length, j => sampled[j] ** 2)),
      bound: sqrt(sum(length, l => l * kernel[l] ** 2) / energy / length),
    };
  }

  /* One-sided Jacobi: turn pairs of columns until all are orthogonal; their lengths are the singular values. */
  function singularValues(columns) {
    const n = columns.length;
    for (let sweep = 0, turned = true; turned && sweep < 30; sweep++) {
      turned = false;
      for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) {
        const u = columns[p], v = columns[q];
        let a = 0, b = 0, c = 0;
        for (let i = 0; i < n; i++) { a += u[i] * u[i]; b += v[i] * v[i]; c += u[i] * v[i]; }
        if (abs(c) <= 1e-12 * sqrt(a * b) || c === 0) continue;
        turned = true;
        const zeta = (b - a) / (2 * c), t = (zeta < 0 ? -1 : 1) / (abs(zeta) + hypot(1, zeta));
        const k = 1 / hypot(1, t), s = k * t;
        for (let i = 0; i < n; i++) { const x = u[i]; u[i] = k * x - s * v[i]; v[i] = s * x + k * v[i]; }
      }
    }
    return columns.map(u => sqrt(u.reduce((s, x) => s + x * x, 0))).sort((a, b) => b - a);
  }

  return { omega, counts, RIDGES, starts, errorAt, bestError, samplesFor, filter };
})();
