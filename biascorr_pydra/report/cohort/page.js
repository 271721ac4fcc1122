"use strict";
(() => {
  document.documentElement.classList.add("scripted");
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  // Okabe and Ito's colors, told apart by most eyes; before is gray, and every method has a symbol of its own as well.
  const BEFORE = "#808080";
  const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"];
  const color = (i) => COLORS[i % COLORS.length];
  const symbol = (i) => SYMBOLS[i % SYMBOLS.length];
  // plotly reads a few tags in its texts: names are shown as they are.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const narrow = () => window.innerWidth < 700;
  const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const indices = [...data.rows.name.keys()];
  const sites = data.site.map(plain);

  // As the page's style has it; paper is light.
  const LIGHT = { ink: "#1c2328", paper: "#fff", grid: "#e5e8ea", edge: "#8a949c" };
  const DARK = { ink: "#e6eaed", paper: "#14181b", grid: "#2b3339", edge: "#75808a" };
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  let printed = false;
  const shades = () => (scheme.matches && !printed ? DARK : LIGHT);

  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"],
    toImageButtonOptions: { format: "svg" } };
  const base = (more) => ({
    font: { family: "system-ui, DejaVu Sans, sans-serif", size: narrow() ? 11 : 13, color: shades().ink },
    margin: { l: 60, r: 12, t: 40, b: 60 }, paper_bgcolor: shades().paper, plot_bgcolor: shades().paper, hovermode: "closest",
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, ...more });
  const axis = (title, more) => ({ title: { text: plain(title) }, gridcolor: shades().grid, zerolinecolor: shades().edge,
    automargin: true, ...more });

  const drawn = new Set();
  const draw = (id, traces, layout) => {
    const place = byId(id);
    Plotly.react(place, traces, layout, config);
    if (!drawn.has(id)) {
      place.on("plotly_click", (event) => {
        const row = event.points[0] && event.points[0].customdata;
        const link = Number.isInteger(row) ? data.rows.link[row] : null;
        if (link) window.location.href = link;
      });
    }
    drawn.add(id);
  };

  // --- what is chosen

  const option = (select, value, text) => {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text;
    select.append(made);
  };
  data.metrics.forEach((metric, i) => option(byId("metric"), i, metric.title + (metric.hint ? ` (${metric.hint})` : "")));
  data.suffix.forEach((suffix, i) => option(byId("contrast"), i, suffix));
  byId("contrast").parentElement.hidden = data.suffix.length < 2;

  const chosen = () => {
    const metric = data.metrics[Number(byId("metric").value)];
    const suffix = Number(byId("contrast").value);
    const rows = indices.filter((i) => data.rows.suffix[i] === suffix && !data.rows.excluded[i]);
    return { metric, rows, before: metric.before && data.values[metric.before],
      after: metric.after && data.values[metric.after] };
  };
  const known = (value) => value !== null && value !== undefined;
  const changeOf = (before, after) => (known(before) && known(after) && before !== 0
    ? 100 * (after - before) / Math.abs(before) : null);
  const label = (i, more) => `${plain(data.rows.name[i])}<br>${sites[data.rows.site[i]]}, ${more}`;

  // --- the plot by site

  const drawSites = () => {
    const { metric, rows, before, after } = chosen();
    const change = byId("shown").value === "change" && before && after;
    byId("shown").disabled = !(before && after);
    const flat = narrow();
    const used = [...new Set(rows.map((i) => data.rows.site[i]))].sort((a, b) => a - b);
    const count = (site) => new Set(rows.filter((i) => data.rows.site[i] === site).map((i) => data.rows.place[i])).size;
    const title = new Map(used.map((site) => [site, `${sites[site]} (${count(site)})`]));
    // A long name would leave no room for the plot; the hover text has it whole.
    const ticks = used.map((site) => `${plain(short(data.site[site], flat ? 12 : 24))} (${count(site)})`);
    const trace = (name, mine, values, fill, marker) => {
      const with_ = mine.filter((i) => known(values(i)));
      const places = with_.map((i) => title.get(data.rows.site[i]));
      const numbers = with_.map(values);
      return { type: "box", name: plain(name), [flat ? "y" : "x"]: places, [flat ? "x" : "y"]: numbers,
        orientation: flat ? "h" : "v", boxpoints: "all", jitter: 0.6, pointpos: 0, customdata: with_,
        text: with_.map((i) => label(i, plain(name))), hovertemplate: `%{text}<br>%{${flat ? "x" : "y"}:.4g}<extra></extra>`,
        line: { color: fill, width: 1.3 }, fillcolor: "rgba(0,0,0,0)", marker: { color: fill, size: 4, opacity: 0.55, symbol: marker } };
    };
    const traces = [];
    if (before && !change) {
      const seen = new Set();  // the acquired image is the same for all methods
      const once = rows.filter((i) => known(before[i]) && !seen.has(data.rows.place[i]) && seen.add(data.rows.place[i]));
      traces.push(trace("before", once, (i) => before[i], BEFORE, "circle-open"));
    }
    if (after) {
      data.method.forEach((name, m) => {
        const mine = rows.filter((i) => data.rows.method[i] === m);
        traces.push(trace(name, mine, (i) => (change ? changeOf(before[i], after[i]) : after[i]), color(m), symbol(m)));
      });
    }
    const values = axis(change ? `${metric.title}, change in %` : metric.title, {});
    const names = { type: "category", categoryorder: "array", categoryarray: [...title.values()], automargin: true,
      tickmode: "array", tickvals: [...title.values()], ticktext: ticks, autorange: flat ? "reversed" : true };
    byId("plot-sites").style.height = flat ? `${140 + used.length * 26 * Math.max(2, traces.length)}px` : "34rem";
    draw("plot-sites", traces, base({ boxmode: "group", xaxis: flat ? values : names, yaxis: flat ? names : values }));
  };

  // --- after against before

  const drawPairs = () => {
    const { metric, rows, before, after } = chosen();
    if (!(before && after)) return;
    const both = rows.filter((i) => known(before[i]) && known(after[i]));
    const traces = data.method.map((name, m) => {
      const mine = both.filter((i) => data.rows.method[i] === m);
      return { type: "scatter", mode: "markers", name: plain(name), x: mine.map((i) => before[i]), y: mine.map((i) => after[i]),
        customdata: mine, text: mine.map((i) => label(i, plain(name))),
        hovertemplate: "%{text}<br>before %{x:.4g}, after %{y:.4g}<extra></extra>",
        marker: { color: color(m), symbol: symbol(m), size: 7, opacity: 0.6,
          line: { color: shades().ink, width: mine.map((i) => (data.rows.flagged[i] ? 1.5 : 0)) } } };
    });
    const all = both.flatMap((i) => [before[i], after[i]]);
    const ends = [Math.min(...all), Math.max(...all)];
    traces.unshift({ type: "scatter", mode: "lines", x: ends, y: ends, hoverinfo: "skip", showlegend: false,
      line: { color: shades().edge, width: 1, dash: "dash" } });
    draw("plot-pairs", all.length ? traces : [], base({ xaxis: axis(`${metric.title}, before`, {}), yaxis: axis(`${metric.title}, after`, {}) }));
  };

  // --- site differences

  const drawDifferences = () => {
    const place = byId("plot-differences");
    const suffix = data.suffix[Number(byId("contrast").value)];
    const rows = data.siteDifferences.filter((row) => row.suffix === suffix);
    const names = [...new Set(rows.map((row) => row.site))].sort();
    const count = (name) => Math.max(...rows.filter((row) => row.site === name).map((row) => row.n_scans));
    const title = (name) => `${plain(name)} (${count(name)})`;
    const ticks = names.map((name) => `${plain(short(name, narrow() ? 12 : 24))} (${count(name)})`);
    const trace = (name, mine, key, fill, mark) => ({ type: "scatter", mode: "markers", name: plain(name),
      x: mine.map((row) => row[key]), y: mine.map((row) => title(row.site)), hovertemplate: "%{y}: %{x:.3g}<extra>" + plain(name) + "</extra>",
      marker: { color: fill, symbol: mark, size: 10 } });
    const first = data.method.find((m) => rows.some((row) => row.method === m));
    const traces = [trace("before", rows.filter((row) => row.method === first), "jsd_before", BEFORE, "circle-open")];
    data.method.forEach((name, m) => traces.push(trace(name, rows.filter((row) => row.method === name), "jsd_after", color(m), symbol(m))));
    place.style.height = `${150 + names.length * 24}px`;
    draw("plot-differences", traces, base({ xaxis: axis("divergence from the other sites", { rangemode: "tozero" }),
      yaxis: { type: "category", categoryorder: "array", categoryarray: names.map(title).reverse(), automargin: true,
        tickmode: "array", tickvals: names.map(title), ticktext: ticks, gridcolor: shades().grid } }));
  };

  // --- ratings

  const ratings = window.scanRatings;
  const targets = new Map();  // by place
  for (const i of indices) {
    const place = data.rows.place[i];
    const { id, folder } = data.stores[data.rows.store[i]];
    if (!targets.has(place)) {
      targets.set(place, { store: id, scan: folder ? place.slice(folder.length + 1) : place, name: data.rows.name[i],
        file: Object.hasOwn(data.ratings, place) ? data.ratings[place] : null });
    }
  }
  const targetOf = (i) => targets.get(data.rows.place[i]);
  ratings.opened(data.stores.map(({ id }) => id));
  for (const place of document.querySelectorAll("[data-place]")) {
    place.append(ratings.control(targets.get(place.dataset.place), true));
  }
  const rated = () => [...targets].map(([place, target]) => [place, ratings.now(target)])
    .filter(([, { rating, note }]) => rating || note);
  const tellRatings = () => {
    const all = rated();
    const count = (word) => all.filter(([, { rating }]) => rating === word).length;
    const same = (a, b) => a.rating === b.rating && a.note === b.note;
    const unsaved = [...targets.values()].filter((target) => ratings.mine(target)
      && !same(ratings.mine(target), target.file || { rating: "", note: "" })).length;
    byId("rated").textContent = `${count("accept")} accepted, ${count("exclude")} excluded, `
      + `${all.filter(([, { note }]) => note).length} with a note`
      + (unsaved ? `; ${unsaved} of them not in this report yet` : "") + "."
      + (ratings.keeps() ? "" : " This browser keeps nothing when the page is closed: save them.");
    // An empty table takes back the ratings that the report was made with.
    byId("save-ratings").disabled = !all.length && !Object.keys(data.ratings).length;
  };
  const cell = (text) => String(text).replace(/\s+/g, " ").trim() || "n/a";
  byId("save-ratings").addEventListener("click", () => {
    const lines = [["scan", "rating", "note", "rated"], ...rated().map(([place, { rating, note, rated: when }]) => [place, rating, note, when])];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.map((line) => `${line.map(cell).join("\t")}\n`).join("")], { type: "text/tab-separated-values" }));
    link.download = `${data.name.replace(/[^A-Za-z0-9._-]+/g, "_")}_ratings.tsv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
  byId("forget-ratings").addEventListener("click", () => {
    if (window.confirm("Forget all ratings of this cohort that this browser has? Those that the report was made with stay.")) {
      ratings.forget([...targets.values()]);
    }
  });
  ratings.watch(tellRatings);
  tellRatings();

  // --- the table

  const PAGE = 100;
  const body = byId("table").tBodies[0];
  const lines = [...body.rows].map((row, i) => ({ row, i, text: row.textContent.toLowerCase() }));
  let everything = false;

  const filter = () => {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const method = byId("f-method").value;
    const site = byId("f-site") ? byId("f-site").value : "";
    const kind = byId("f-kind").value;
    const wanted = byId("f-rating").value;
    const fitsRating = (i) => {
      const { rating, note } = ratings.now(targetOf(i));
      return wanted === "note" ? note : wanted === "none" ? !rating : rating === wanted;
    };
    let found = 0;
    for (const { row, i, text } of lines) {
      const kinds = row.dataset.kind.split(" ");
      const fits = words.every((word) => text.includes(word)) && (!method || row.dataset.method === method)
        && (!site || row.dataset.site === site) && (!kind || kinds.includes(kind))
        && (!wanted || fitsRating(i));
      if (fits) found += 1;
      row.hidden = !fits || (!everything && found > PAGE);
      if (!row.hidden && !row.lastElementChild.firstElementChild) {  // two thousand controls at once take long
        row.lastElementChild.replaceChildren(ratings.control(targetOf(i), false));
      }
    }
    const shown = everything ? found : Math.min(found, PAGE);
    byId("count").textContent = `${shown} of ${found} rows shown` + (found < lines.length ? `, of ${lines.length} in all.` : ".");
    byId("more").hidden = shown === found;
  };

  const sort = (column, head) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of byId("table").tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = head.dataset.kind === "number";
    const key = ({ row, i }) => {
      if (head.dataset.kind === "rating") return ratings.now(targetOf(i)).rating || null;
      const cell = row.cells[column];
      return numeric ? (cell.dataset.v === "" ? null : Number(cell.dataset.v)) : cell.textContent;
    };
    const keyed = lines.map((line) => [key(line), line]);
    keyed.sort(([a, x], [b, y]) => {
      if (a === null || b === null) return (a === null) - (b === null) || x.i - y.i;  // undefined is last both ways
      const order = numeric ? a - b : a.localeCompare(b, "en", { numeric: true });
      return (down ? -order : order) || x.i - y.i;
    });
    lines.splice(0, lines.length, ...keyed.map(([, line]) => line));
    body.append(...lines.map(({ row }) => row));
    filter();
  };

  [...byId("table").tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(column, head));
  });
  for (const id of ["find", "f-method", "f-site", "f-kind", "f-rating"]) {
    if (byId(id)) byId(id).addEventListener("input", () => { everything = false; filter(); });
  }
  byId("more").addEventListener("click", () => { everything = true; filter(); });
  byId("reset").addEventListener("click", () => {
    for (const id of ["find", "f-method", "f-site", "f-kind", "f-rating"]) if (byId(id)) byId(id).value = "";
    everything = false;
    filter();
  });

  // --- the scans to look at: the first of many

  const FIRST = 20;
  const later = byId("looks") ? [...byId("looks").children].slice(FIRST) : [];
  if (later.length) {
    for (const look of later) look.hidden = true;
    byId("more-looks").hidden = false;
    byId("more-looks").addEventListener("click", () => {
      for (const look of later) look.hidden = false;
      byId("more-looks").hidden = true;
      later[0].querySelector("a, button, input")?.focus();
    });
  }

  // --- the text to paste

  if (byId("copy")) {
    byId("copy").addEventListener("click", async () => {
      const text = [...byId("paste").children].map((p) => p.textContent).join("\n\n");
      try {
        await navigator.clipboard.writeText(text);
        byId("copied").textContent = "Copied.";
      } catch {  // a browser may refuse: then the text is marked, to be copied by hand
        window.getSelection().selectAllChildren(byId("paste"));
        byId("copied").textContent = "Marked; copy it with Ctrl+C.";
      }
    });
  }

  // A plot of thousands of points takes seconds: it is drawn when it comes into view.
  const plots = new Map([["plot-sites", drawSites], ["plot-pairs", drawPairs], ["plot-differences", drawDifferences]]);
  const stale = new Set(plots.keys());
  const inView = new Set();
  const update = () => {
    for (const id of inView) if (stale.delete(id)) plots.get(id)();
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target.id);
    update();
  }, { rootMargin: "200px" });
  const drawChosen = () => {
    const { metric } = chosen();
    byId("before-after").hidden = !(metric.before && metric.after);
    for (const id of plots.keys()) stale.add(id);
    update();
  };
  for (const id of ["metric", "contrast", "shown"]) byId(id).addEventListener("change", drawChosen);
  scheme.addEventListener("change", drawChosen);
  for (const [event, whether] of [["beforeprint", true], ["afterprint", false]]) {
    window.addEventListener(event, () => {
      printed = whether;
      if (scheme.matches) for (const id of drawn) plots.get(id)();
    });
  }
  let wasNarrow = narrow();
  window.addEventListener("resize", () => {
    if (wasNarrow !== narrow()) { wasNarrow = narrow(); drawChosen(); }
  });
  filter();
  drawChosen();
  for (const id of plots.keys()) if (byId(id)) watcher.observe(byId(id));
  document.documentElement.dataset.ready = "yes";
})();
