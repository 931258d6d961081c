// How many tiles stand side by side, and how large.

const MOST_MAPS = 64; // maps shown before one asks for all
const MOST_UNITS = 1024;

/** How `count` tiles of H x W fill a column `room` CSS pixels high (or, across, `room` wide):
 * {shown, columns, width, gap}. */
export function arrangement(count, H, W, room, across, all) {
  const flat = H * W === 1;
  const shown = all ? count : Math.min(count, flat ? MOST_UNITS : MOST_MAPS);
  if (flat) return across ? unitsAcross(shown, room) : units(shown, room);
  const gap = 4;
  const largest = Math.max(H, W);
  const widest = (side) => Math.max(3, (side * W) / largest);
  if (across) {
    const columns = Math.min(
      shown,
      Math.max(shown <= 6 ? 6 : 5, Math.min(10, Math.ceil(Math.sqrt(1.6 * shown)))),
    );
    return {
      shown,
      columns,
      gap,
      width: widest(Math.min(count === 1 ? 112 : 72, (room - 6) / columns - gap)),
    };
  }
  const side = (columns) => {
    const rows = Math.ceil(shown / columns);
    return Math.min(count === 1 ? 96 : 68, (room - 6 - (rows - 1) * gap) / rows);
  };
  let columns = 1;
  while (side(columns) < 33 && columns < 8) columns++;
  if (shown > MOST_MAPS) columns = Math.ceil(shown / 8);
  return { shown, columns, gap, width: widest(Math.max(side(columns), 20)) };
}

function units(D, room) {
  if (D <= 16) return { shown: D, columns: 1, gap: 3, width: Math.min(20, (room - 6) / D - 3) };
  const rows = Math.min(32, Math.ceil(Math.sqrt(2 * D)));
  const gap = rows > 24 ? 1 : 2;
  return { shown: D, columns: Math.ceil(D / rows), gap, width: Math.min(13, (room - 6) / rows - gap) };
}

function unitsAcross(D, room) {
  if (D <= 16) return { shown: D, columns: D, gap: 3, width: Math.min(22, (room - 6) / D - 3) };
  const columns = Math.min(D, 25);
  return { shown: D, columns, gap: 2, width: Math.min(13, (room - 6) / columns - 2) };
}
