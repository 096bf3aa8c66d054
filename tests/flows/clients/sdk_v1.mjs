// The first official TypeScript SDK (handshake revisions only), as most clients in use have it. Same output as client.mjs.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const { url, key, calls } = JSON.parse(process.argv[2]);
const client = new Client({ name: 'flows', version: '1' });
const headers = { Authorization: `Bearer ${key}` };
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
await client.connect(transport);
const { tools } = await client.listTools();
const progress = [];
const results = [];
for (const call of calls) results.push(await client.callTool(call, undefined, { onprogress: (update) => progress.push(update) }));
const version = transport.protocolVersion;
console.log(JSON.stringify({ version, tools: tools.map((row) => row.name), results, progress }));
await client.close();
