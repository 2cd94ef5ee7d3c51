/* Formulas and tables that are wider than the column are set smaller, down to legible; what still does not fit scrolls,
   by keyboard, too. */
(() => {
  "use strict";
  const LEAST = { "div.math mjx-container": 0.6, ".bd-article table": 0.75 };
  const wide = e => e.scrollWidth > e.clientWidth + 1;

  function fit() {
    for (const [kind, least] of Object.entries(LEAST))
      for (const e of document.querySelectorAll(kind)) {
        e.style.fontSize = "";
        const full = parseFloat(getComputedStyle(e).fontSize);
        // in a few steps, for not all of its width goes with the font
        for (let size = 1; size > least && wide(e); ) {
          size = Math.max(least, size * Math.min(0.98, e.clientWidth / e.scrollWidth));
          e.style.fontSize = `${full * size}px`;
        }
      }
    for (const e of document.querySelectorAll(".bd-article :is(mjx-container, table, pre, .cell_output, .output)"))
      if (wide(e)) e.tabIndex = 0;
      else e.removeAttribute("tabindex");
    for (const e of document.querySelectorAll("span.math")) { // in a line of text
      const formula = e.querySelector("mjx-container");
      e.classList.toggle("tdi-wide", !!formula && formula.getBoundingClientRect().width > e.clientWidth + 1);
      if (e.classList.contains("tdi-wide")) e.tabIndex = 0;
      else e.removeAttribute("tabindex");
    }
  }

  /* The arrows of the list of pages: the theme gives them no name. */
  function name() {
    for (const e of document.querySelectorAll("summary"))
      if (!e.textContent.trim()) e.ariaLabel = `Pages of ${e.parentElement.previousElementSibling?.textContent.trim()}`;
  }

  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(fit, 100); });
  addEventListener("load", async () => {
    name();
    await window.MathJax?.startup?.promise;
    fit();
    document.documentElement.dataset.fitted = ""; // tests wait for it
  });
})();
