// Draws the figures of cxrlib.show.interactive. Plotly is loaded when the first of them comes into view;
// what they show is said in words at once, whether or not it can be drawn.
(() => {
  const PLOTLY = new URL("plotly.min.js", document.currentScript.src).href;
  const CONFIG = { displayModeBar: false, responsive: true };
  const GREY = "#888888";

  let loading;
  function plotly() {
    loading ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = PLOTLY;
      script.onload = () => done(window.Plotly);
      script.onerror = failed;
      document.head.append(script);
    });
    return loading;
  }

  const number = (x, digits = 2) => (Number(x.toFixed(digits)) + 0).toFixed(digits);
  const count = (x, what) => (x === null ? "" : `${x.toLocaleString("en-GB")} ${what}`);
  const listed = (parts) => parts.filter(Boolean).join(", ");

  function interval(row, digits = 2) {
    const known = row.ci_low !== null && row.ci_high !== null;
    return known ? `[${number(row.ci_low, digits)}, ${number(row.ci_high, digits)}]` : "[undefined]";
  }

  function estimate(row, digits = 2) {
    if (row.value === null) return `undefined (${row.note})`;
    return `${number(row.value, digits)} ${interval(row, digits)}`;
  }

  function counts(row) {
    return listed([
      count(row.n, "images"), count(row.n_positive, "positive"), count(row.n_patients, "patients"),
    ]);
  }

  // What Plotly calls an asymmetric error bar.
  function whiskers(rows, value, colour) {
    const side = (limit, sign) =>
      rows.map((r) => (r[limit] === null || r[value] === null ? 0 : sign * (r[limit] - r[value])));
    return { type: "data", symmetric: false, array: side("ci_high", 1),
      arrayminus: side("ci_low", -1), color: colour, thickness: 1.5, width: 0 };
  }

  // Each kind of figure: from its data and what was chosen to traces, axes and words.
  const KINDS = {
    explorer(data, chosen) {
      const { model, label, attribute, metric } = chosen;
      const rows = data.rows.filter((r) => r.model === model && r.label === label &&
        r.metric === metric && (r.attribute === attribute || r.attribute === "all"));
      const traces = rows.map((r) => ({
        x: [data.name(r.group)], y: [r.value ?? data.baselines[metric]], type: "scatter",
        mode: "markers", showlegend: false,
        error_y: whiskers([r], "value", data.line),
        marker: { size: 11, line: { width: 1, color: data.line },
          color: r.value === null ? "rgba(0,0,0,0)" : data.colours[r.group] }, // hollow: undefined
        text: [`${data.name(r.group)}: ${estimate(r)}<br>${counts(r)}` +
          (r.note && r.value !== null ? `<br>${r.note}` : "")],
        hoverinfo: "text",
      }));
      const told = rows.map((r) =>
        `${data.name(r.group)} ${estimate(r)}${counts(r) && `, ${counts(r)}`}`);
      const title = `${data.name(metric)} of ${model}, ${data.name(label)}, by ${data.name(attribute)}`;
      return { traces, words: `${title}: ${told.join("; ")}.`,
        layout: { xaxis: { type: "category" }, yaxis: { title: { text: data.name(metric) } } } };
    },

    reliability(data, chosen) {
      const rows = data.rows.filter((r) => r.label === chosen.label &&
        (!chosen.method || r.method === chosen.method) &&
        (chosen.model === "all models" || r.model === chosen.model));
      const traces = [{ x: [0, 1], y: [0, 1], mode: "lines", name: "perfect", hoverinfo: "skip",
        line: { color: GREY, dash: "dash", width: 1 } }];
      const told = [];
      for (const model of new Set(rows.map((r) => r.model))) {
        const curve = rows.filter((r) => r.model === model);
        curve.sort((a, b) => a.predicted - b.predicted);
        const colour = data.colours[model];
        const said = (r) => `${number(r.observed)} observed at ${number(r.predicted)} predicted`;
        traces.push({ x: curve.map((r) => r.predicted), y: curve.map((r) => r.observed),
          mode: "lines+markers", name: model, line: { color: colour },
          marker: { size: 8, color: colour, line: { width: 1, color: data.line } },
          error_y: whiskers(curve, "observed", colour),
          text: curve.map((r) => `${model}: ${said(r)} ${interval(r)}<br>${counts(r)}`),
          hoverinfo: "text" });
        const ends = [...new Set([curve[0], curve.at(-1)])].map(said).join(" to ");
        told.push(`${model}, ${curve.length} bins: ${ends}`);
      }
      return { traces, words: `${listed([data.name(chosen.label), chosen.method])}. ${told.join("; ")}.`,
        layout: { xaxis: { range: [0, 1], title: { text: "mean predicted probability" } },
          yaxis: { range: [0, 1], title: { text: "observed frequency" } } } };
    },

    scatter(data, { attribute }) {
      const groups = data.groups[attribute];
      const traces = [], told = [];
      for (const code of [-1, ...groups.keys()]) { // those without a group lie below
        const rows = data.rows.filter((r) => r[attribute] === code);
        if (!rows.length) continue;
        const title = code < 0 ? "not recorded" : data.name(groups[code]);
        traces.push({ x: rows.map((r) => r.x), y: rows.map((r) => r.y), mode: "markers",
          name: title, hoverinfo: "name",
          marker: { size: 4, opacity: 0.75, color: data.colours[groups[code]] ?? GREY } });
        told.push(`${count(rows.length, "")}${title}`);
      }
      return { traces, words: `${count(data.rows.length, "images")} by ${data.name(attribute)}: ${told.join(", ")}.`,
        layout: { xaxis: { title: { text: "first component" } }, yaxis: { title: { text: "second component" } },
          legend: { itemsizing: "constant" } } };
    },

    dose(data, chosen) {
      const setting = data.settings[chosen.setting];
      const traces = curves(data, data.rows, "model", "x", setting);
      const told = data.rows.filter((r) => r.x === setting).map((r) => `${r.model} ${estimate(r)}`);
      return { traces, words: `${data.xlabel} ${setting}, ${data.ylabel}: ${told.join("; ")}.`,
        layout: overSettings(data, setting, data.ylabel) };
    },

    decisions(data, chosen) {
      const risk = data.settings[chosen.setting];
      const rows = data.rows.filter((r) => r.attribute === chosen.attribute);
      const traces = curves(data, rows.filter((r) => r.metric === chosen.metric), "group", "threshold", risk);
      const here = rows.filter((r) => r.threshold === risk);
      here.sort((a, b) => (b.metric === chosen.metric) - (a.metric === chosen.metric)); // what is drawn first
      const told = [...new Set(here.map((r) => r.group))].map((group) => `${data.name(group)}: ` +
        listed(here.filter((r) => r.group === group).map((r) => `${data.name(r.metric)} ${estimate(r, 0)}`)));
      const ratio = number((1 - risk) / risk, 1);
      return { traces, words: `An alarm from a risk of ${number(100 * risk, 1)} % on, ` +
        `as if a missed case were as bad as ${ratio} false alarms. ${told.join("; ")}.`,
        layout: overSettings(data, risk, data.name(chosen.metric)) };
    },
  };

  // A line for each entry of a column over the settings of a slider, larger where that stands.
  function curves(data, rows, column, x, setting) {
    return [...new Set(rows.map((r) => r[column]))].map((entry) => {
      const curve = rows.filter((r) => r[column] === entry);
      const colour = data.colours[entry];
      return { x: curve.map((r) => r[x]), y: curve.map((r) => r.value), name: data.name(entry),
        mode: "lines+markers", line: { color: colour }, error_y: whiskers(curve, "value", colour),
        marker: { color: colour, opacity: 1, size: curve.map((r) => (r[x] === setting ? 14 : 6)),
          line: { width: 1, color: data.line } },
        text: curve.map((r) => `${data.name(entry)}: ${estimate(r)}<br>${counts(r)}`), hoverinfo: "text" };
    });
  }

  function overSettings(data, setting, title) {
    return { xaxis: { title: { text: folded(data.xlabel, data.width) } }, yaxis: { title: { text: title } },
      shapes: [{ type: "line", x0: setting, x1: setting, y0: 0, y1: 1, yref: "paper",
        line: { color: GREY, width: 1, dash: "dot" } }] };
  }

  // A long title on two lines where the figure is narrow.
  function folded(text, width) {
    const middle = text.indexOf(" ", text.length / 2);
    const long = text.length * 8 > width - 60 && middle > 0;
    return long ? `${text.slice(0, middle)}<br>${text.slice(middle + 1)}` : text;
  }

  // The page's own colours and letters; no dragging, so that a finger still scrolls the page.
  function dressed(layout, style) {
    const text = style.getPropertyValue("--pst-color-text-base").trim();
    const axis = { fixedrange: true, automargin: true, zeroline: false, linecolor: text,
      gridcolor: style.getPropertyValue("--pst-color-border").trim() };
    return { ...layout, dragmode: false, hovermode: "closest", margin: { l: 50, r: 10, t: 10, b: 45 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: text, family: style.fontFamily, size: 13 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", ...layout.legend },
      xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
  }

  // Dark colours are mixed with white where the page is dark: 3 to 1 is what a line needs.
  function lit(colour) {
    const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    const [r, g, b] = parts.map((x) => (x / 255) ** 2.2);
    if (0.2126 * r + 0.7152 * g + 0.0722 * b > 0.13) return colour;
    return `rgb(${parts.map((x) => Math.round(x + 0.45 * (255 - x))).join(", ")})`;
  }

  function start(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    data.rows = data.rows.map((row) => Object.fromEntries(row.map((x, i) => [data.columns[i], x])));
    const colours = Object.entries(data.colours ?? {});
    data.name = (code) => data.names[code] ?? String(code);
    const form = box.querySelector("form");
    const plot = box.querySelector(".cxr-plot");
    let inView = false;

    function show() {
      const style = getComputedStyle(document.body);
      data.line = style.getPropertyValue("--pst-color-text-muted").trim();
      data.width = plot.clientWidth;
      const dark = document.documentElement.dataset.theme === "dark";
      data.colours = Object.fromEntries(colours.map(([name, c]) => [name, dark ? lit(c) : c]));
      const chosen = Object.fromEntries([...new FormData(form)]);
      const { traces, layout, words } = KINDS[box.dataset.kind](data, chosen);
      form.querySelector("[role=status]").textContent = words;
      plot.setAttribute("aria-label", words);
      if (!inView) return;
      plotly().then((Plotly) => Plotly.react(plot, traces, dressed(layout, style), CONFIG));
    }

    box.querySelector(".cxr-elsewhere").hidden = true;
    form.hidden = false;
    plot.setAttribute("role", "img");
    plot.classList.add("cxr-drawn"); // keeps its room before it is drawn
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    new MutationObserver(show).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    new IntersectionObserver((seen, observer) => {
      if (!seen.some((one) => one.isIntersecting)) return;
      observer.disconnect();
      inView = true;
      show();
    }, { rootMargin: "400px" }).observe(plot);
    show();
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const box of document.querySelectorAll(".cxr-interactive")) start(box);
  });
})();
