"use strict";
// Two volumes in one, as the base64 of a NIfTI file: in cubes that alternate, or in two colours.
globalThis.compareOfReport = (() => {
  const HEADER_BYTES = 352;
  const [DATATYPE_AT, BITS_AT, OFFSET_AT, SLOPE_AT, SFORM_CODE_AT, SFORM_AT, MAGIC_AT] = [70, 72, 108, 112, 254, 280, 344];
  const [UINT8, RGBA32] = [2, 2304];
  const CUBES_PER_SIDE = 12;
  const CHUNK = 0x8000;
  const LEGENDS = { colours: "Green: fixed. Magenta: moving. Grey: both agree.", checkerboard: "Cubes alternate between fixed and moving." };

  // The grey of each voxel in an image's present window, 0 to 255.
  const greys = image => {
    const [low, scale] = [image.cal_min, 255 / (image.cal_max - image.cal_min)];
    return Uint8ClampedArray.from(image.img, value => (value - low) * scale);
  };
  const header = (image, type, bits) => {
    const { dims, pixDims, affine } = image.hdr;
    const view = new DataView(new ArrayBuffer(HEADER_BYTES));
    const float = (at, value) => view.setFloat32(at, value, true);
    view.setInt32(0, 348, true);
    for (let n = 0; n < 8; n++) {
      view.setInt16(40 + 2 * n, n ? (n < 4 ? dims[n] : 1) : 3, true);
      float(76 + 4 * n, n > 0 && n < 4 ? pixDims[n] : 1);
    }
    view.setInt16(DATATYPE_AT, type, true);
    view.setInt16(BITS_AT, bits, true);
    float(OFFSET_AT, HEADER_BYTES);
    float(SLOPE_AT, 1);
    view.setInt16(SFORM_CODE_AT, 1, true);
    for (let row = 0; row < 3; row++) for (let column = 0; column < 4; column++) float(SFORM_AT + 16 * row + 4 * column, affine[row][column]);
    ["n", "+", "1"].forEach((letter, place) => view.setUint8(MAGIC_AT + place, letter.charCodeAt(0)));
    return new Uint8Array(view.buffer);
  };
  const encode = parts => {
    const bytes = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    const words = [];
    for (let n = 0; n < bytes.length; n += CHUNK) words.push(String.fromCharCode(...bytes.subarray(n, n + CHUNK)));
    return btoa(words.join(""));
  };
  const checkerboard = (fixed, moving, [, columns, rows, slices]) => {
    const size = Math.max(1, Math.round(Math.max(columns, rows, slices) / CUBES_PER_SIDE));
    const mixed = Uint8Array.from(fixed);
    for (let n = 0, k = 0; k < slices; k++) for (let j = 0; j < rows; j++) for (let i = 0; i < columns; i++, n++) {
      if ((Math.floor(i / size) + Math.floor(j / size) + Math.floor(k / size)) % 2) mixed[n] = moving[n];
    }
    return mixed;
  };
  const colours = (fixed, moving) => {
    const rgba = new Uint8Array(4 * fixed.length);
    for (let n = 0; n < fixed.length; n++) {
      rgba[4 * n] = rgba[4 * n + 2] = moving[n];
      rgba[4 * n + 1] = fixed[n];
      rgba[4 * n + 3] = Math.max(fixed[n], moving[n]); // air hides nothing in 3D
    }
    return rgba;
  };
  const composite = (mode, fixed, moving) => {
    const both = [greys(fixed), greys(moving)];
    return mode === "colours"
      ? encode([header(fixed, RGBA32, 32), colours(...both)])
      : encode([header(fixed, UINT8, 8), checkerboard(...both, fixed.hdr.dims)]);
  };
  // Labels of which only the voxels with another neighbour are left.
  const outlined = (labels, [, columns, rows, slices]) => {
    const steps = [[1, columns], [columns, rows], [columns * rows, slices]];
    return labels.map((label, n) => label && steps.some(([step, size]) => {
      const place = Math.floor(n / step) % size;
      return (place > 0 && labels[n - step] !== label) || (place < size - 1 && labels[n + step] !== label);
    }) ? label : 0);
  };
  return { composite, outlined, LEGENDS };
})();
