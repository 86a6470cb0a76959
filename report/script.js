"use strict";
// Draws the charts in the colours of the page, again when these change, and switches members.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = ["#4493f8", "#e8710a", "#2da44e", "#d1477a", "#8957e5", "#b08800", "#1b9aaa", "#8c6d5a"];

  function layout(chart) {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
    const ink = colour("--ink");
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: palette,
      font: { color: ink, family: "system-ui, sans-serif", size: 12 },
      margin: { l: 56, r: 12, t: 12, b: 44 }, hovermode: "closest",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      ...chart.layout,
      xaxis: { ...axis, ...chart.layout.xaxis }, yaxis: { ...axis, ...chart.layout.yaxis },
    };
  }

  function draw() {
    for (const chart of charts) {
      // without the bar of tools, which covers legends where nothing hovers; a double click ends a zoom
      Plotly.react(chart.id, chart.data, layout(chart), { responsive: true, displayModeBar: false });
    }
  }

  // a member has one colour in all charts of its section, whose buttons are their legend
  for (const group of document.querySelectorAll(".members")) {
    const section = Number(group.closest("section").id.split("-")[1]);
    const own = charts.filter((chart) => chart.section === section);
    own.forEach((chart) => { chart.layout.showlegend = false; });
    group.querySelectorAll("button").forEach((button, number) => {
      const shade = palette[number % palette.length];
      button.querySelector("i").style.background = shade;
      own.flatMap((chart) => chart.data).filter((trace) => trace.name === button.dataset.member)
        .forEach((trace) => { trace.line = { color: shade }; });
    });
  }

  for (const button of document.querySelectorAll("button[data-member]")) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      const section = Number(button.closest("section").id.split("-")[1]);
      for (const chart of charts.filter((each) => each.section === section)) {
        for (const trace of chart.data) {
          if (trace.name === button.dataset.member) trace.visible = shown;
        }
      }
      draw();
    });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
