// The official TypeScript client (both eras): connects, lists the tools, makes the calls one by one; prints what it saw as one line of JSON.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const { url, key, mode, calls } = JSON.parse(process.argv[2]);
const client = new Client({ name: 'flows', version: '1' }, { versionNegotiation: { mode } });
const headers = { Authorization: `Bearer ${key}` };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
const { tools } = await client.listTools();
const progress = [];
const results = [];
for (const call of calls) results.push(await client.callTool(call, { onprogress: (update) => progress.push(update) }));
const version = client.getNegotiatedProtocolVersion();
console.log(JSON.stringify({ version, tools: tools.map((row) => row.name), results, progress }));
await client.close();
