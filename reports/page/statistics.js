// The tests of the report (orchestrator/statistics), for any two rows that a reader ticks. A test in the repository
// compares both over random numbers. Tests over images need the images' outcomes, which stay in the database: their
// results come with the page's data.

/** Return the two-sided p-value of Student's t with an integer number of degrees of freedom: Abramowitz and Stegun, 26.7.3 and 26.7.4. */
function studentP(t, freedom) {
  const angle = Math.atan(Math.abs(t) / Math.sqrt(freedom));
  const sine = Math.sin(angle), cosine = Math.cos(angle);
  const odd = freedom % 2 === 1;
  let term = freedom > 1 ? (odd ? cosine : 1) : 0;
  let total = term;
  for (let k = odd ? 3 : 2; k < freedom - 1; k += 2) {
    term *= (cosine ** 2 * (k - 1)) / k;
    total += term;
  }
  return Math.max(0, 1 - (odd ? ((angle + sine * total) * 2) / Math.PI : sine * total));
}

/** Return the t beyond which 5 % of Student's distribution lie, on both sides together. */
function studentQuantile(freedom) {
  let low = 0, high = 20;
  while (high - low > 1e-10 * high) {
    const middle = (low + high) / 2;
    if (studentP(middle, freedom) > 0.05) low = middle;
    else high = middle;
  }
  return high;
}

/** Return erfc(x) for x >= 0 to 15 digits: its series where x is small, its continued fraction (from behind) beyond. */
function complementaryError(x) {
  if (x < 2.5) {
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum) && n < 200; n++) {
      term *= -(x * x) / n;
      sum += term / (2 * n + 1);
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 80; n > 0; n--) fraction = n / 2 / (x + fraction);
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + fraction);
}

/** Return the binomial standard deviation, in percent, of an error rate measured on so many images. */
function rateNoise(percent, images) {
  const rate = Math.min(Math.max(percent / 100, 0), 1);
  return 100 * Math.sqrt((rate * (1 - rate)) / images);
}

/** Return p and half the 95 % interval of n paired differences; null where they are equal, not zero, and no error rates. */
function pairedTest(middle, spread, n, scale, images) {
  if (spread <= 1e-12 * scale) {
    spread = 0;
    if (Math.abs(middle) <= 1e-12 * scale) middle = 0;
  }
  // Error rates are multiples of one image, and equal by chance: they scatter no less than by that rounding.
  if (images) spread = Math.max(spread, 100 / images / Math.sqrt(12));
  if (!spread) return middle ? null : { p: 1, margin: 0 };
  const error = spread / Math.sqrt(n);
  return { p: studentP(middle / error, n - 1), margin: studentQuantile(n - 1) * error };
}

/** Return the difference of two entries (first minus second), half its 95 % interval, p and n; null where nothing can be tested. */
function compareEntries(first, second) {
  const [one, two] = [first, second].map((entry) => new Map(entry.samples.map(([trial, , value, , pair]) => [`${data.trials[trial].seed} ${pair}`, value])));
  const shared = [...one.keys()].filter((key) => two.has(key));
  if ([...one.values(), ...two.values()].some((value) => value === null) || !one.size || !two.size) return null;
  const sizes = [first, second].map((entry) => Math.min(...entry.samples.map(([, , , images]) => images || Infinity)));
  if (shared.length >= 3) {
    const differences = shared.map((key) => one.get(key) - two.get(key));
    const middle = mean(differences), spread = deviation(differences), n = shared.length;
    const scale = Math.max(...shared.flatMap((key) => [Math.abs(one.get(key)), Math.abs(two.get(key))]));
    const tested = pairedTest(middle, spread, n, scale, sizes.every(Number.isFinite) ? Math.min(...sizes) : null);
    return { test: tested ? "paired" : "equal", difference: middle, n, ...(tested ?? { p: null, margin: null }) };
  }
  const means = [one, two].map((values) => mean([...values.values()]));
  const n = Math.min(one.size, two.size);
  const difference = means[0] - means[1];
  if (!sizes.every(Number.isFinite)) return { test: "none", difference, margin: null, p: null, n };
  const images = Math.min(...sizes);
  const noise = Math.hypot(rateNoise(means[0], images), rateNoise(means[1], images));
  const p = noise === 0 ? (difference === 0 ? 1 : 0) : complementaryError(Math.abs(difference) / noise / Math.SQRT2);
  return { test: "unpaired", difference, margin: 1.959963984540054 * noise, p, n, images };
}
