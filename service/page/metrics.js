// What the service counts (/metrics, as Prometheus reads it), in the few figures that the page shows.

/** The samples of one metric: [{labels, value}] by name. */
function samplesOf(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const [, name, labels = "", value] = line.match(/^(\w+)(?:\{(.*)\})? (\S+)$/) ?? [];
    if (!name) continue;
    const named = Object.fromEntries([...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, said]) => [key, said]));
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels: named, value: Number(value) });
  }
  return samples;
}

/** Searches, their time, their batches, refusals and failures since the service started. */
export function figuresOf(text) {
  const samples = samplesOf(text);
  const total = (name, wanted = () => true) =>
    (samples.get(name) ?? []).filter(({ labels }) => wanted(labels)).reduce((sum, { value }) => sum + value, 0);
  const buckets = new Map(); // upper bound in seconds: searches up to there
  for (const { labels, value } of samples.get("eigenlens_search_duration_seconds_bucket") ?? []) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    buckets.set(bound, (buckets.get(bound) ?? 0) + value);
  }
  const searches = total("eigenlens_search_duration_seconds_count");
  const batches = total("eigenlens_batch_size_count");
  return {
    searches,
    waiting: total("eigenlens_queue_depth"),
    batch: batches ? total("eigenlens_batch_size_sum") / batches : 0,
    refused: total("eigenlens_requests_refused_total"),
    failures: total("http_server_request_duration_seconds_count", ({ status }) => status?.startsWith("5")),
    /** The bound, in seconds, that this share of the searches stayed below; 0 before the first. */
    within: (share) => Math.min(...[...buckets].filter(([, below]) => searches && below >= share * searches).map(([bound]) => bound), searches ? Infinity : 0),
  };
}
