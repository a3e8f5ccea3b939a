"use strict";
(() => {
  const SLICE_TYPES = { planes: 3, axial: 0, coronal: 1, sagittal: 2, render: 4 };
  const GRID_LAYOUT = 2;
  const PERIOD_MS = 700; // fewer than three flashes per second, which is safe for photosensitive readers
  const STRUCTURES_OPACITY = 0.45;
  const OUTLINES_OPACITY = 1;
  const AXES = ["right-left", "front-back", "head-feet"];
  const section = document.getElementById("viewer");
  const byId = id => document.getElementById(`viewer-${id}`);
  const showStatus = text => { byId("status").textContent = text; };
  const inflate = async element => {
    const bytes = Uint8Array.from(atob(element.textContent.trim()), c => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const loadBundle = async () => {
    const script = document.createElement("script");
    script.textContent = await inflate(byId("bundle"));
    document.head.append(script);
    return globalThis.niivue;
  };

  const open = async () => {
    byId("open").disabled = true;
    showStatus("Loading …");
    const { Niivue, NVImage } = await loadBundle();
    byId("stage").hidden = false;
    const canvas = byId("canvas");
    const nv = new Niivue({
      isRadiologicalConvention: true,
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.42, 0.79, 0.89, 0.8],
      crosshairWidth: 0.6,
      fontColor: [0.84, 0.88, 0.91, 1],
      sagittalNoseLeft: true,
      multiplanarForceRender: true,
      multiplanarLayout: GRID_LAYOUT,
      show3Dcrosshair: true,
      dragAndDropEnabled: false,
      loadingText: "",
      logLevel: "silent",
    });
    await nv.attachToCanvas(canvas);
    const colours = JSON.parse(byId("colours").textContent);
    const loaded = {};
    const source = key => section.querySelector(`[data-volume="${key}"]`);
    const load = key => loaded[key] ??= (async () => {
      const { kind, low, high } = source(key).dataset;
      const base64 = source(key).textContent.trim();
      const image = await NVImage.loadFromBase64({ base64, name: `${key}.nii.gz`, cal_min: Number(low), cal_max: Number(high) });
      if (kind === "labels") image.setColormapLabel(colours);
      image.opacity = key === "fixed" ? 1 : 0;
      nv.addVolume(image);
      return image;
    })();
    await load("fixed");

    const centre = JSON.parse(section.dataset.centre);
    const sliders = AXES.map(axis => byId(axis));
    nv.onLocationChange = location => {
      const frac = location.frac ?? nv.scene.crosshairPos;
      sliders.forEach((slider, axis) => { slider.value = Math.round(1000 * frac[axis]); });
      const mm = Array.from(location.mm ?? nv.frac2mm(frac)).slice(0, 3);
      const letters = ["RL", "AP", "SI"];
      byId("place").textContent = mm.map((value, axis) => `${letters[axis][value < 0 ? 1 : 0]} ${Math.abs(value).toFixed(0)}`).join(", ") + " mm";
    };
    const moveTo = frac => {
      nv.scene.crosshairPos = frac;
      nv.drawScene();
      nv.onLocationChange({ frac, mm: nv.frac2mm(frac) });
    };
    const { composite, outlined, LEGENDS } = globalThis.compareOfReport;
    let composed = null;
    let shownComposite = "";
    let timer = null;
    let flipped = false;
    const drop = () => {
      if (composed) nv.removeVolume(composed);
      composed = null;
      shownComposite = "";
    };
    const compose = async (mode, over) => {
      const wanted = [mode, over, byId("window").value].join();
      if (wanted === shownComposite) return;
      const made = composite(mode, await load("fixed"), await load(over));
      drop();
      composed = await NVImage.loadFromBase64({ base64: made, name: "composite.nii", cal_min: 0, cal_max: 255 });
      nv.addVolume(composed);
      shownComposite = wanted;
    };
    const whole = {};
    const drawOutlines = async () => {
      for (const key of Object.keys(loaded).filter(key => source(key).dataset.kind === "labels")) {
        const image = await loaded[key];
        whole[key] ??= image.img;
        const wanted = byId("outlines").checked ? outlined(whole[key], image.hdr.dims) : whole[key];
        if ((image.img === whole[key]) === (wanted === whole[key])) continue;
        image.img = wanted;
        nv.updateGLVolume();
      }
    };
    // Hidden volumes are not unpacked: without a graphics card each one costs seconds.
    const show = async () => {
      const [mode, over] = [byId("compare").value, byId("over").value];
      const composes = mode === "colours" || mode === "checkerboard";
      const share = { blend: Number(byId("blend").value) / 100, flicker: flipped ? 1 : 0 }[mode] ?? 0;
      const wanted = { fixed: 1, [over]: share, [byId("structures")?.value ?? "none"]: byId("outlines")?.checked ? OUTLINES_OPACITY : STRUCTURES_OPACITY };
      byId("blend-label").hidden = mode !== "blend";
      byId("share").textContent = `${Math.round(100 * share)} %`;
      byId("legend").textContent = mode === "flicker" ? (flipped ? "Moving" : "Fixed") : LEGENDS[mode] ?? "";
      if (composes) await compose(mode, over);
      else drop();
      for (const key of Object.keys(wanted)) if (key !== "none" && wanted[key] > 0) await load(key);
      await drawOutlines();
      nv.volumes.forEach((image, place) => {
        const opacity = image === composed ? 1 : wanted[image.name.replace(".nii.gz", "")] ?? 0;
        if (image.opacity !== opacity) nv.setOpacity(place, opacity);
      });
      // Structures lie above what they are compared with.
      const labels = nv.volumes.find(image => image.name.endsWith("labels.nii.gz") && image.opacity > 0);
      if (labels && composed && nv.volumes.at(-1) !== labels) nv.setVolume(labels, nv.volumes.length - 1);
    };
    const setMode = async () => {
      clearInterval(timer);
      flipped = false;
      const flicker = byId("compare").value === "flicker";
      if (flicker) await load(byId("over").value);
      timer = flicker ? setInterval(() => { flipped = !flipped; show(); }, PERIOD_MS) : null;
      await show();
    };
    const setWindow = async () => {
      const [low, high] = byId("window").value.split(" ").map(Number);
      for (const key of ["fixed", "before", "warped"]) {
        const { dataset } = source(key);
        if (dataset.kind !== source("fixed").dataset.kind) continue;
        [dataset.low, dataset.high] = [low, high];
        if (loaded[key]) Object.assign(await loaded[key], { cal_min: low, cal_max: high });
      }
      nv.updateGLVolume();
      await show();
    };
    for (const id of ["over", "blend", "structures", "outlines"]) byId(id)?.addEventListener("input", show);
    byId("compare").addEventListener("input", setMode);
    byId("window").addEventListener("input", setWindow);
    sliders.forEach((slider, axis) => slider.addEventListener("input", () => {
      const frac = Array.from(nv.scene.crosshairPos);
      frac[axis] = Number(slider.value) / 1000;
      moveTo(frac);
    }));
    byId("layout").addEventListener("input", event => nv.setSliceType(SLICE_TYPES[event.target.value]));
    byId("centre").addEventListener("click", () => moveTo(centre));
    await show();
    moveTo(centre);
    showStatus("");
    section.dataset.ready = "true";
    byId("open").hidden = true;
    globalThis.viewerOfReport = nv;
  };

  byId("open").addEventListener("click", () => {
    open().catch(error => {
      byId("stage").hidden = true;
      showStatus(`This browser cannot show the viewer (${error.message}). The pictures below do not need it.`);
    });
  });
})();
