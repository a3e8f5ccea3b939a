"use strict";
(() => {
  const PERIOD_MS = 700; // fewer than three flashes per second, which is safe for photosensitive readers
  const stage = document.getElementById("flicker-stage");
  const shown = document.getElementById("flicker-shown");
  const play = document.getElementById("flicker-play");
  const pictures = key => document.querySelectorAll(`#row-${key} img`);
  const [fixed, warped] = [pictures("fixed"), pictures("warped")];
  stage.querySelectorAll("figure").forEach((figure, plane) => {
    const [below, above] = figure.querySelectorAll("img");
    for (const [target, source] of [[below, fixed[plane]], [above, warped[plane]]]) {
      target.src = source.src;
      target.width = source.width;
      target.height = source.height;
    }
  });
  const flip = () => {
    shown.textContent = stage.classList.toggle("warped") ? "Warped" : "Fixed";
  };
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.setAttribute("aria-pressed", "false");
    play.textContent = "Play";
    shown.setAttribute("aria-live", "polite");
  };
  const start = () => {
    timer = setInterval(flip, PERIOD_MS);
    play.setAttribute("aria-pressed", "true");
    play.textContent = "Stop";
    shown.setAttribute("aria-live", "off");
  };
  document.getElementById("flicker-toggle").addEventListener("click", () => { stop(); flip(); });
  play.addEventListener("click", () => (timer === null ? start() : stop()));
  document.documentElement.classList.add("js");
})();
