// Numbers as people read them: few digits, a real minus sign, an exponent where it must be.

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** value with so many significant digits; "–" where there is none. */
export function shown(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-3) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return minus(`${mantissa}·10${raised(Number(exponent))}`);
  }
  const decimals = Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(size))));
  return minus(value.toFixed(decimals));
}

/** value as one says it in a sentence: 1 and 0.5, not 1.00 and 0.500. */
export function plainly(value) {
  return minus(String(Number(value.toPrecision(3))));
}

/** value with its sign, for the terms of a sum. */
export function signed(value, digits = 3) {
  return value > 0 ? `+${shown(value, digits)}` : shown(value, digits);
}

/** A probability, four decimals. */
export function chance(p) {
  return p > 0 && p < 0.00005 ? "<0.0001" : p.toFixed(4);
}

/** The power of ten to divide numbers up to `most` by, so that they take few characters; 0 for none. */
export function commonExponent(most) {
  if (!(most > 0) || !Number.isFinite(most)) return 0;
  return most < 0.05 || most >= 10000 ? Math.floor(Math.log10(most)) : 0;
}

/** value for a cell of a grid: so many decimals, fewer from 10 up. */
export function brief(value, decimals = 2) {
  if (Number.isNaN(value)) return "";
  const size = Math.abs(value);
  const text = value.toFixed(Math.max(0, decimals - (size >= 99.95 ? 2 : size >= 9.995 ? 1 : 0)));
  return minus(Number(text) === 0 ? "0" : text);
}

/** -3 as ⁻³. */
export function raised(exponent) {
  const digits = [...String(Math.abs(exponent))].map((digit) => SUPERSCRIPTS[Number(digit)]).join("");
  return exponent < 0 ? `⁻${digits}` : digits;
}

/** (10, 8, 8) as 10 × 8 × 8. */
export function sizes(shape) {
  return shape.join(" × ");
}

function minus(text) {
  return text.replaceAll("-", "−");
}
