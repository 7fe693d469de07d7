// Numbers as people read them.

const NANO = 1_000_000_000;

/** Nano-USD as dollars: cents where they say enough, more digits where they do not. */
export function dollars(nano) {
  const usd = nano / NANO;
  if (usd === 0) return "$0";
  if (usd < 0.0001) return "< $0.0001";
  return `$${usd.toFixed(usd < 0.1 ? 4 : 2)}`;
}

const STEPS = [
  [60, "second"],
  [60, "minute"],
  [24, "hour"],
  [7, "day"],
  [Infinity, "week"],
];

/** How long ago, in one unit. */
export function ago(time) {
  if (!time) return "never";
  let amount = (Date.now() - new Date(time).getTime()) / 1000;
  if (amount < 5) return "just now";
  for (const [size, unit] of STEPS) {
    if (amount < size) {
      return new Intl.RelativeTimeFormat("en", { style: "short" }).format(-Math.floor(amount), unit);
    }
    amount /= size;
  }
  return "long ago";
}
