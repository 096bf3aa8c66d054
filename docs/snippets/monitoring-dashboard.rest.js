// What the sample leaves to its reader: how servers are fetched and looked at, and what is done with what comes. It prints one JSON line
// for each: {"servers"}, {"health"}, {"update"}.
const base = "https://plugged.in";
const headers = { Authorization: "Bearer pk_live_abc123...", "Content-Type": "application/json" };

class PrintedMonitor extends ServerMonitor {
  async fetchServers() {
    const { servers } = await (await fetch(`${base}/api/servers`, { headers })).json();
    console.log(JSON.stringify({ servers: servers.map(({ uuid, slug }) => ({ uuid, slug })) }));
    return servers;
  }

  async checkServerHealth(uuid) {
    return (await fetch(`${base}/api/servers/${uuid}/health`, { headers })).json();
  }

  updateServerStatus(uuid, health) {
    this.servers.get(uuid).status = health.status;
    console.log(JSON.stringify({ health: { uuid, ...health } }));
  }

  handleUpdate(update) {
    console.log(JSON.stringify({ update }));
  }
}

new PrintedMonitor("pk_live_abc123...").start();
