// What a browser does by itself on a page of the hub: relative addresses, its Origin, and cookies.
const origin = "https://plugged.in", cookies = new Map(), send = globalThis.fetch;
globalThis.fetch = async (path, options) => {
  const cookie = [...cookies].map((pair) => pair.join("=")).join("; ");
  const answer = await send(origin + path, { ...options, headers: { ...options.headers, origin, cookie } });
  for (const line of answer.headers.getSetCookie()) {
    const [pair] = line.split(";");
    cookies.set(pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1));
  }
  return answer;
};
