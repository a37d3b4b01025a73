"use strict";
// Draws each figure below its heading, in the colours of the page; again when the reader's system changes them.
(() => {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const figures = [...document.querySelectorAll(".figure")].map((place) => ({
    place, figure: JSON.parse(place.nextElementSibling.textContent),
  }));
  const axes = (layout, changes) => {
    const found = {};
    for (const name of new Set([...Object.keys(layout), "xaxis", "yaxis"])) {
      if (/^[xy]axis\d*$/.test(name)) found[name] = { ...(layout[name] || {}), ...changes };
    }
    return found;
  };
  const dressed = (layout, dark, kind) => {
    const ink = dark ? "#e6eaf0" : "#1c2430", line = dark ? "#2c3542" : "#e3e7ed";
    const { template, title, width, height, ...own } = layout;
    return {
      margin: { t: 30, r: 20, b: 50, l: 60 }, ...own, autosize: true, paper_bgcolor: "rgba(0,0,0,0)",
      // The darkest lines of parallel coordinates are the best ones: they need a light ground.
      plot_bgcolor: dark && kind === "parallel" ? "#dfe5ec" : "rgba(0,0,0,0)", font: { color: ink, family: "system-ui, sans-serif", size: 12 },
      colorway: dark ? ["#6cb2f5", "#f0a35e", "#4cc38a", "#d58bdd", "#f0776a"]
        : ["#2a78c5", "#e07b39", "#1a7f4b", "#8e44ad", "#c0392b"],
      ...axes(own, { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true }),
    };
  };
  // One that can't be drawn says so, and the others are.
  const drawOne = async ({ place, figure }, dark) => {
    if (place.classList.contains("broken")) return;
    try {
      await Plotly.react(place, figure.data, dressed(figure.layout, dark, place.dataset.kind), { responsive: true, displaylogo: false });
    } catch (error) {
      place.classList.add("broken");
      place.textContent = `This figure could not be drawn: ${error.message}`;
    }
  };
  const draw = (dark) => Promise.all(figures.map((one) => drawOne(one, dark)));
  document.documentElement.dataset.drawn = "no";
  draw(query.matches).then(() => { document.documentElement.dataset.drawn = String(figures.length); });
  query.addEventListener("change", () => draw(query.matches));
  addEventListener("beforeprint", () => { draw(false); });
  addEventListener("afterprint", () => { draw(query.matches); });
})();
