// A key whose burst is spent is refused, waits as long as it is told, and is answered.
const url = "https://plugged.in/api/servers", options = { headers: { Authorization: `Bearer ${process.env.API_KEY}` } };
while ((await fetch(url, options)).status !== 429);
const waits = [], later = globalThis.setTimeout;
globalThis.setTimeout = (run, ms) => { waits.push(ms); return later(run, ms); };
const response = await apiCallWithRetry(url, options);
console.log(JSON.stringify({ status: response.status, waited: waits.length, least: Math.min(...waits) >= 1000 }));
process.exit();
