"use strict";
(() => {
  const SLICE_TYPES = { planes: 3, axial: 0, coronal: 1, sagittal: 2, render: 4 };
  const GRID_LAYOUT = 2;
  const STRUCTURES_OPACITY = 0.45;
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
    const load = key => loaded[key] ??= (async () => {
      const base64 = section.querySelector(`[data-volume="${key}"]`).textContent.trim();
      const image = await NVImage.loadFromBase64({ base64, name: `${key}.nii.gz`, cal_min: 0, cal_max: 255 });
      if (key.endsWith("labels")) image.setColormapLabel(colours);
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
    // Hidden volumes are not unpacked: without a graphics card each one costs seconds.
    const show = async () => {
      const share = Number(byId("blend").value) / 100;
      const wanted = { fixed: 1, [byId("over").value]: share, [byId("structures")?.value ?? "none"]: STRUCTURES_OPACITY };
      byId("share").textContent = `${Math.round(100 * share)} %`;
      for (const key of Object.keys(wanted)) if (key !== "none" && wanted[key] > 0) await load(key);
      nv.volumes.forEach((image, place) => {
        const opacity = wanted[image.name.replace(".nii.gz", "")] ?? 0;
        if (image.opacity !== opacity) nv.setOpacity(place, opacity);
      });
    };
    for (const id of ["over", "blend", "structures"]) byId(id)?.addEventListener("input", show);
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
