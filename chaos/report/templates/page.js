"use strict";
// Without this the page can be read all the same: it points, looks closer, filters and copies.
(() => {
  const byId = (id) => document.getElementById(id);
  const clock = (seconds, tenths) => {
    const whole = Math.floor(seconds / 60), hours = Math.floor(whole / 60), rest = (seconds % 60).toFixed(tenths ? 1 : 0);
    const padded = rest.padStart(tenths ? 4 : 2, "0");
    return hours ? `${hours}:${String(whole % 60).padStart(2, "0")}:${padded}` : `${whole}:${padded}`;
  };

  // --- the timeline ---
  const figure = byId("timeline"), end = Number(figure.dataset.end), series = JSON.parse(byId("series").textContent);
  const readout = byId("readout"), hint = readout.textContent, ticks = figure.querySelector(".ticks");
  const plots = [...figure.querySelectorAll(".plot:not(.ticks)")];
  const STEPS = [0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];
  let from = 0, until = end, pressed = null;

  const show = (left, right) => {
    const width = Math.min(end, Math.max(end / 500, right - left));
    from = Math.max(0, Math.min(left, end - width));
    until = from + width;
    for (const svg of figure.querySelectorAll(".plot svg")) {
      const height = svg.viewBox.baseVal.height;
      svg.setAttribute("viewBox", `${from} 0 ${width} ${height}`);
    }
    const step = STEPS.find((one) => width / one <= 7) || Math.max(width / 7, 86400);
    ticks.replaceChildren();
    for (let at = Math.ceil(from / step - 1e-9) * step; at <= until + 1e-9; at += step) {
      const label = document.createElement("span");
      label.textContent = clock(at, step < 1);
      const place = ((at - from) / width) * 100;
      label.style.left = `${place}%`;
      label.className = place < 2 ? "first" : place > 98 ? "last" : "";
      ticks.append(label);
    }
  };
  const pointed = (event) => {
    const box = plots[0].getBoundingClientRect();
    const x = Math.max(0, Math.min(event.clientX - box.left, box.width));
    return { x, at: from + (x / box.width) * (until - from) };
  };
  const tell = (event, at) => {
    const fault = event.target.closest && event.target.closest(".f");
    if (fault) return fault.querySelector("title").textContent;
    const one = series.find(([begins, ends]) => begins <= at && at < ends);
    if (!one) return clock(at, true);
    const [, , completed, compensated, flying] = one;
    return `${clock(at, true)} · ${completed} completed and ${compensated} compensated a second · ${flying.toLocaleString("en")} in flight`;
  };
  const drag = (a, b) => {
    figure.style.setProperty("--from", `${Math.min(a, b)}px`);
    figure.style.setProperty("--width", `${Math.abs(a - b)}px`);
    figure.classList.toggle("dragged", Math.abs(a - b) > 4);
  };
  for (const plot of plots) {
    plot.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0) {
        pressed = pointed(event);
        event.preventDefault();
      }
    });
    plot.addEventListener("pointerleave", () => {
      if (!pressed) { figure.classList.remove("pointed"); readout.textContent = hint; }
    });
    for (const kind of ["pointermove", "pointerdown"]) plot.addEventListener(kind, (event) => {
      const { x, at } = pointed(event);
      figure.style.setProperty("--x", `${x}px`);
      figure.classList.add("pointed");
      readout.textContent = tell(event, at);
    });
  }
  addEventListener("pointermove", (event) => { if (pressed) drag(pressed.x, pointed(event).x); });
  addEventListener("pointerup", (event) => {
    if (!pressed) return;
    const first = pressed, last = pointed(event);
    pressed = null;
    drag(0, 0);
    if (Math.abs(first.x - last.x) > 4) show(Math.min(first.at, last.at), Math.max(first.at, last.at));
  });
  const zooms = {
    in: () => show(from + (until - from) / 4, until - (until - from) / 4),
    out: () => show(from - (until - from) / 2, until + (until - from) / 2),
    left: () => show(from - (until - from) / 2, until - (until - from) / 2),
    right: () => show(from + (until - from) / 2, until + (until - from) / 2),
    all: () => show(0, end),
  };
  for (const button of figure.querySelectorAll("[data-zoom]")) button.addEventListener("click", zooms[button.dataset.zoom]);
  figure.querySelector(".tools").hidden = false;

  // --- the command ---
  const copy = byId("copy");
  if (navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(byId("reproduce").textContent);
      copy.textContent = "copied";
    });
  }

  // --- the faults ---
  const filter = byId("filter");
  if (filter) {
    const rows = [...byId("faults").tBodies[0].rows];
    filter.closest(".filter").hidden = false;
    filter.addEventListener("input", () => {
      const wanted = filter.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
      byId("filtered").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
    });
  }
})();
